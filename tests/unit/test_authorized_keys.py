"""The portal's line in ``authorized_keys``: what it says, and that nothing else in the file changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from launcher.ssh.authorized_keys import key_line, with_line, without_key

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBpnTzWhQmSKuaHKpdTbJfUSWJlPkQ5Zg6Zo6vAlYbPN"
LINE = key_line(PUBLIC, source_addresses=(), portal_name="Physics portal", username="alice")


def test_the_line_restricts_and_names_the_portal() -> None:
    assert f"restrict,port-forwarding {PUBLIC} footbridge:Physics_portal:alice".encode() == LINE


def test_the_line_is_good_from_the_given_addresses() -> None:
    line = key_line(PUBLIC, source_addresses=("192.0.2.1", "2001:db8::/64"), portal_name="p", username="alice")
    assert line.startswith(b'from="192.0.2.1,2001:db8::/64",restrict,port-forwarding ssh-ed25519 ')


def test_a_portal_name_cannot_add_a_line_or_an_option() -> None:
    line = key_line(PUBLIC, source_addresses=(), portal_name='x\nssh-rsa AAAA evil "', username="alice")
    assert b"\n" not in line
    assert line.count(b" ") == 3


def test_a_commented_line_with_the_key_stays() -> None:
    content = b"# " + LINE + b"\n"
    assert with_line(content, LINE) == content + LINE + b"\n"


@given(st.binary(max_size=200))
def test_the_rest_stays_byte_for_byte(content: bytes) -> None:
    assert with_line(content, LINE).startswith(content)
    assert with_line(with_line(content, LINE), LINE) == with_line(content, LINE)
    assert without_key(with_line(content, LINE), PUBLIC) == content
