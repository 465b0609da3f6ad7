"""Which session a request is for, by its host and its path."""

from __future__ import annotations

import pytest

from launcher.proxy.sites import NOWHERE, Places, Site, path_of

LABEL = "abcdefghijklmnopqrstuvwx"
ID = "abcdefghjkmn"
PLACES = Places(Site("https://notebooks.example.org", "sessions.example.org"))
DEMO = Places(Site("http://localhost:8000", "localhost"))


@pytest.mark.parametrize("host", [f"{LABEL}.sessions.example.org", f"{LABEL.upper()}.sessions.example.org:443"])
def test_a_host_of_its_own_names_a_session(host: str) -> None:
    place = PLACES.find(host.encode(), b"/lab")
    assert (place.label, place.origin.path) == (LABEL, b"/")
    assert place.origin.serialized == f"https://{LABEL}.sessions.example.org".encode()


@pytest.mark.parametrize("path", ["", "/", "/lab", "/../x", "//y"])
def test_a_path_of_the_portal_names_a_session(path: str) -> None:
    place = PLACES.find(b"notebooks.example.org", f"/s/{ID}{path}".encode())
    assert (place.label, place.origin.path) == (ID, path_of(ID).encode())
    assert place.origin.serialized == b"https://notebooks.example.org"


@pytest.mark.parametrize(
    "path",
    ["/", "/s", "/s/", "/s/x/", f"/s/{ID}x/", f"/s/{ID[1:]}/", f"/s/{ID.upper()}/", f"//s/{ID}/", f"/%73/{ID}/",
     f"/s%2F{ID}/", f"/s/{ID}%2F", f"/x/../s/{ID}/", f"/S/{ID}/", f"/s/{ID}\n", f"/s/{ID};/"],
)  # fmt: skip
def test_another_path_is_the_portals_own(path: str) -> None:
    assert PLACES.find(b"notebooks.example.org", path.encode()) is NOWHERE


@pytest.mark.parametrize(
    "host",
    ["", "example.org", "notebooks.example.org:8000", "notebooks.example.org.", "sessions.example.org", "localhost",
     "x@notebooks.example.org", "evil.notebooks.example.org"],
)  # fmt: skip
def test_the_path_counts_at_the_portals_own_name_only(host: str) -> None:
    assert PLACES.find(host.encode(), f"/s/{ID}/lab".encode()) is NOWHERE


def test_a_port_that_is_not_the_usual_one_must_be_named() -> None:
    assert DEMO.find(b"localhost:8000", f"/s/{ID}/".encode()).label == ID
    assert DEMO.find(b"localhost", f"/s/{ID}/".encode()) is NOWHERE
    assert DEMO.find(f"{LABEL}.localhost:8000".encode(), b"/").label == LABEL


def test_the_cookies_name_says_how_far_it_reaches() -> None:
    site = Site("https://notebooks.example.org", "sessions.example.org")
    assert site.cookie_name() == "__Host-footbridge"
    assert site.cookie_name(b"/s/x/") == "__Secure-footbridge"
