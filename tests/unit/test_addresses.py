"""Where a request came from."""

from __future__ import annotations

from portal.addresses import client_address


def test_a_stranger_cannot_choose_an_address() -> None:
    assert client_address("203.0.113.9", "10.0.0.1", ()) == "203.0.113.9"


def test_a_trusted_proxy_is_believed_up_to_the_first_untrusted_hop() -> None:
    assert client_address("10.0.0.1", "198.51.100.7, 203.0.113.9, 10.0.0.2", ("10.0.0.1", "10.0.0.2")) == "203.0.113.9"
