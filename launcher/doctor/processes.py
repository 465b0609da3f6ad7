"""Checks of what must run beside a command: Valkey, worker, beat, the web processes, and the addresses they are at."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from launcher.doctor.findings import Said, broken, doubtful, fine, one_line, words_of
from launcher.doctor.portal import site_conf, without_password
from portal.conf import Conf
from portal.words import marked as _

QUEUE = "footbridge"
OLDEST_VERSION = (5, 0)
"""Redis' BZPOPMIN, by which open pages hear news, is of 5.0."""
TICK_SECONDS = 4.0
"""Beat ticks every second; nobody is slower than this with nothing to do."""
MANY_MESSAGES = 200
CLOCK_SECONDS = 5
"""Certificates and times on pages bear a smaller difference."""
WEB_SECONDS = 5.0


def _client() -> Any:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options: dict[str, Any] = {"socket_timeout": 3, "socket_connect_timeout": 3, "retry": Retry(NoBackoff(), 0)}
    return redis.Redis.from_url(site_conf().valkey_url, **options)


def valkey(_portal: object) -> Sequence[Said]:
    """Valkey or Redis answers, is new enough, and throws nothing away."""
    from redis.exceptions import RedisError

    where = without_password(site_conf().valkey_url)
    try:
        with contextlib.closing(_client()) as client:
            info = client.info()
    except (RedisError, OSError, ValueError) as error:
        return [
            broken(
                _("Valkey does not answer at %(where)s: %(words)s"),
                _("Start it, or correct PORTAL_VALKEY_URL."),
                command="systemctl start valkey-server",
                where=where,
                words=one_line(error),
            )
        ]
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST_VERSION:
        return [
            broken(
                _("%(name)s %(version)s is too old."),
                _("Take Valkey 7.2 or later, or Redis 6.2 or later."),
                name=name,
                version=version,
            )
        ]
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    policy = str(info.get("maxmemory_policy", ""))
    if limit and policy != "noeviction":
        return [
            doubtful(
                _("When its memory is full, %(name)s throws work away (maxmemory-policy %(policy)s)."),
                _("Set the policy to noeviction, also in its configuration file."),
                command="valkey-cli config set maxmemory-policy noeviction",
                name=name,
                policy=policy,
            )
        ]
    if limit and used > 0.9 * limit:
        return [
            doubtful(
                _("%(name)s has used %(percent)s %% of the memory it may have, and will then refuse to work."),
                _("Raise maxmemory, or find out what fills it."),
                name=name,
                percent=round(100 * used / limit),
            )
        ]
    return [fine(_("%(name)s %(version)s at %(where)s."), name=name, version=version, where=where)]


def clock(_portal: object) -> Said:
    """This computer and the one of Valkey agree about the time."""
    began_at = time.time()
    with contextlib.closing(_client()) as client:
        seconds, microseconds = client.time()
    difference = seconds + microseconds / 1e6 - (began_at + time.time()) / 2
    if abs(difference) > CLOCK_SECONDS:
        return doubtful(
            _("The clocks of this computer and of Valkey's differ by %(seconds)s s."),
            _("Let both follow a time server (chrony, systemd-timesyncd)."),
            command="timedatectl",
            seconds=f"{difference:.0f}",
        )
    return fine(_("The clock agrees with that of Valkey to %(seconds)s s."), seconds=f"{abs(difference):.1f}")


def worker(_portal: object) -> Said:
    """A worker takes messages."""
    from celery import current_app

    # a free worker answers at once; on a busy computer it may take longer
    answers = current_app.control.ping(timeout=1) or current_app.control.ping(timeout=4)
    with contextlib.closing(_client()) as client:
        waiting = int(client.llen(QUEUE))
    if not answers:
        return broken(
            _("No worker answers: nothing is submitted, looked after or stopped. Messages that wait: %(waiting)s."),
            _("Start it; if it runs, its log says what it hangs on."),
            command="systemctl restart footbridge-worker",
            waiting=waiting,
        )
    if waiting > MANY_MESSAGES:
        return doubtful(
            _("The workers fall behind: %(waiting)s messages wait. Workers that answer: %(count)s."),
            _("Look into their log for a cluster that hangs, or start another worker."),
            count=len(answers),
            waiting=waiting,
        )
    return fine(
        _("Workers that answer: %(count)s. Messages that wait: %(waiting)s."), count=len(answers), waiting=waiting
    )


def beat(_portal: object) -> Said:
    """Beat ticks: a worker has just done what it sends every second, or its messages pile up."""
    from django.core.cache import cache

    from launcher.figures import WORKER_SEEN

    with contextlib.closing(_client()) as client:
        seen, waiting = cache.get(WORKER_SEEN), int(client.llen(QUEUE))
        deadline = time.monotonic() + TICK_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.2)
            if cache.get(WORKER_SEEN) not in (None, seen):
                return fine(_("Beat ticks, and a worker follows."))
        if int(client.llen(QUEUE)) > waiting:
            return fine(_("Beat ticks."))
    return broken(
        _("Beat does not tick: nobody asks the clusters how the sessions are."),
        _("Start it, exactly one for the whole portal."),
        command="systemctl restart footbridge-beat",
    )


def web(_portal: object) -> Said:
    """A web process answers, at the address that browsers use."""
    conf = site_conf()
    public = urlsplit(conf.portal_url)
    port = public.port or (443 if conf.is_https else 80)
    name = public.hostname or "localhost"
    try:
        health = _health(name, port, host=public.netloc, tls=conf.is_https)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _not_at_its_address(conf, error)
    if health.get("status") == "ok":
        return fine(_("The web process answers at %(url)s."), url=conf.portal_url)
    return broken(
        _("The web process at %(url)s says that it can do no work: %(parts)s."),
        _("Mend what is named; the web process goes on by itself."),
        url=conf.portal_url,
        parts=", ".join(f"{part} {state}" for part, state in sorted(dict(health.get("parts") or {}).items())),
    )


def _not_at_its_address(conf: Conf, error: Exception) -> Said:
    words = words_of(error)
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(conf.host, conf.host)  # noqa: S104  # compared, not bound
    try:
        _health(local, conf.port, host=urlsplit(conf.portal_url).netloc, tls=False)
    except (OSError, http.client.HTTPException, ValueError):
        return broken(
            _("No web process answers: neither at %(url)s (%(words)s) nor on this computer at port %(port)s."),
            _("Start it; if it runs, its log says why it does not answer."),
            command="systemctl restart footbridge-web",
            url=conf.portal_url,
            words=words,
            port=conf.port,
        )
    return broken(
        _("The web process runs on this computer, but %(url)s does not lead to it: %(words)s"),
        _("Correct PORTAL_URL, the name in DNS, the certificate, or the reverse proxy (deploy/nginx.conf)."),
        url=conf.portal_url,
        words=words,
    )


def _health(address: str, port: int, *, host: str, tls: bool) -> dict[str, Any]:
    """What ``/health/`` says. Raises OSError, HTTPException, or ValueError where it is not our portal that answers."""
    if tls:
        link: http.client.HTTPConnection = http.client.HTTPSConnection(
            address, port, timeout=WEB_SECONDS, context=ssl.create_default_context()
        )
    else:
        link = http.client.HTTPConnection(address, port, timeout=WEB_SECONDS)
    with contextlib.closing(link):
        link.request(
            "GET", "/health/", headers={"Host": host, "X-Forwarded-Proto": urlsplit(site_conf().portal_url).scheme}
        )
        answer = link.getresponse()
        body = answer.read(10_000)
    if answer.status not in (200, 503):
        raise ValueError(f"something answers {answer.status} {answer.reason} where /health/ should be")
    health = json.loads(body)
    if not isinstance(health, dict):
        raise ValueError("something else answers where /health/ should be")
    return health


def sessions_domain(_portal: object) -> Said:
    """Browsers find each session's own address."""
    conf = site_conf()
    public = urlsplit(conf.portal_url)
    domain, portal_name = conf.sessions_domain, public.hostname or ""
    if conf.session_addresses == "path":
        return doubtful(
            _("Sessions are below %(portal)s itself: a notebook's page can act there as whoever has it open."),
            _("With wildcard DNS, set PORTAL_SESSION_ADDRESSES=host; until then, read SECURITY.md."),
            portal=portal_name,
        )
    is_here = portal_name in ("localhost", "127.0.0.1", "::1") or portal_name.endswith(".localhost")
    if domain == "localhost" or domain.endswith(".localhost"):
        if is_here:
            return fine(
                _("Browsers find *.%(domain)s on their own computer, which is where this portal is."), domain=domain
            )
        return broken(
            _("PORTAL_SESSIONS_DOMAIN is %(domain)s: browsers would look for notebooks on their own computer."),
            _("Set it to a domain of the site's with a wildcard in DNS, for example sessions.%(portal)s."),
            domain=domain,
            portal=portal_name,
        )
    name = f"check-{secrets.token_hex(6)}.{domain}"
    port = public.port or (443 if conf.is_https else 80)
    try:
        found = _addresses(name, port)
    except OSError as error:
        return broken(
            _("*.%(domain)s is not in DNS: %(name)s was not found (%(words)s)."),
            _("Add the record *.%(domain)s, leading where %(portal)s leads."),
            domain=domain,
            name=name,
            words=error.strerror or error,
            portal=portal_name,
        )
    if conf.is_https:
        try:
            context = ssl.create_default_context()
            with socket.create_connection((name, port), WEB_SECONDS) as link:
                context.wrap_socket(link, server_hostname=name).close()
        except OSError as error:
            return broken(
                _("Browsers cannot open https://*.%(domain)s: %(words)s"),
                _("The reverse proxy must answer for *.%(domain)s with a certificate for it (deploy/nginx.conf)."),
                domain=domain,
                words=one_line(error),
            )
    with contextlib.suppress(OSError):
        if not found & _addresses(portal_name, port):
            return doubtful(
                _("*.%(domain)s leads to another address than %(portal)s."),
                _("Let both lead to the same reverse proxy, unless sessions have one of their own."),
                domain=domain,
                portal=portal_name,
            )
    return fine(_("*.%(domain)s is found."), domain=domain)


def _addresses(name: str, port: int) -> set[str]:
    return {str(entry[4][0]) for entry in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)}
