"""What the fields of a request say to the proxy, found out once for fields that come again.

Nothing here is a permission: the cookie is only what the permission is asked for with, for each request. Kept under
exactly the same fields, the cookie among them, and the same client; so what one person sends is never another's.
"""

from __future__ import annotations

from collections.abc import Sequence

from launcher.proxy.cookies import cookie_value
from launcher.proxy.plan import Plans
from launcher.proxy.sites import PATHS, Place, Places, Site
from launcher.proxy.visit import UNDECIDED, Prepared, Scope, Visit, raw_path_of
from portal.addresses import client_address

MOST_READINGS = 1024
"""How many are kept in a process. When there are more, all are forgotten: they are soon found again."""
MOST_BYTES = 4096
"""The longest fields that are kept."""

Key = tuple[str, tuple[tuple[bytes, bytes], ...]]


class Reading:
    """See the module."""

    __slots__ = ("client", "cookie", "fields", "is_kept", "place", "prepared")

    def __init__(self, fields: dict[bytes, bytes], place: Place, cookie: str, client: str) -> None:
        self.fields = fields
        self.place = place
        self.cookie = cookie
        self.client = client
        self.prepared = Prepared()
        self.is_kept = False

    def visit_of(self, scope: Scope) -> Visit:
        """The visit of a request with these fields, before anything is decided on it."""
        place = self.place
        return Visit(scope, place.label, self.cookie, self.fields, place.origin, self.client, UNDECIDED, self.prepared)


class Readings:
    """The readings of a process, and the plans for requests that were read so: without its reading none is found. Only
    those for sessions with a host of their own: elsewhere the path has a say.
    """

    __slots__ = ("_kept", "plans")

    def __init__(self) -> None:
        self._kept: dict[Key, Reading] = {}
        self.plans = Plans()

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all."""
        for reading in self._kept.values():
            reading.is_kept = False
        self._kept.clear()
        self.plans.clear()

    def find(self, key: Key) -> Reading | None:
        """What was read of the same fields from the same client."""
        return self._kept.get(key)

    def keep(self, key: Key, reading: Reading) -> None:
        """Keep what was read, if it is worth it."""
        if reading.place.label and reading.place.origin.path == b"/" and _size(key[1]) <= MOST_BYTES:
            if len(self._kept) >= MOST_READINGS:
                self.clear()
            self._kept[key] = reading
            reading.is_kept = True


class Reader:
    """Reads the requests at the addresses of one site."""

    def __init__(self, site: Site) -> None:
        self._trusted = site.trusted_proxies
        self._places = Places(site)
        self._readings = Readings()
        self.plans = self._readings.plans
        self._cookie_names = (site.cookie_name(PATHS).encode("ascii"), site.cookie_name().encode("ascii"))

    def knows(self, scope: Scope) -> bool:
        """Whether a request is for a session's address. With two ``Host`` fields it is for nobody."""
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        return len(hosts) == 1 and bool(self._places.find(hosts[0], raw_path_of(scope)).label)

    def read(self, scope: Scope) -> Reading:
        """What a request's fields say, and at an address with a path what that says."""
        headers = scope["headers"]
        peer: str = (scope.get("client") or ("",))[0]
        key = (peer, tuple(headers))
        is_socket = scope["type"] == "websocket"  # each with a key of its own
        reading = None if is_socket else self._readings.find(key)
        if reading is None:
            fields: dict[bytes, bytes] = dict(headers)
            place = self._places.find(fields.get(b"host", b""), raw_path_of(scope))
            name = self._cookie_names[place.origin.path == b"/"]
            cookie = cookie_value(fields.get(b"cookie", b""), name)
            reading = Reading(fields, place, cookie, self._client(peer, fields))
            if not is_socket:
                self._readings.keep(key, reading)
        return reading

    def plan_for(self, reading: Reading, scope: Scope) -> None:
        """A request that was read so may pass: have a plan for the next one like it."""
        if reading.is_kept:
            self.plans.make(reading, scope, reading.visit_of)

    def forget(self) -> None:
        """Read all anew, and decide: there may be heads with a secret that has changed."""
        self._readings.clear()

    def _client(self, peer: str, fields: dict[bytes, bytes]) -> str:
        if not self._trusted:
            return peer
        return client_address(peer, fields.get(b"x-forwarded-for", b"").decode("latin-1"), self._trusted)


def _size(fields: Sequence[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in fields)
