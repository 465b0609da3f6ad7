"""The mail server's address: what it means, and what is refused without repeating the password."""

from __future__ import annotations

import pytest

from portal.conf import Conf
from portal.mailserver import is_sender, parse_mail_server

KEY = "0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("address", "meaning"),
    [
        ("smtp://u:p%40ss@mail.example.org", ("mail.example.org", 587, "u", "p@ss", "starttls")),
        ("smtp://mail.example.org:25", ("mail.example.org", 25, "", "", "starttls")),
        ("smtps://u:p@mail.example.org", ("mail.example.org", 465, "u", "p", "always")),
        ("smtp://localhost:1025", ("localhost", 1025, "", "", "never")),
        ("smtp://[::1]:25", ("::1", 25, "", "", "never")),
        ("smtp://relay.example.org:25?starttls=never", ("relay.example.org", 25, "", "", "never")),
    ],
)
def test_what_an_address_means(address: str, meaning: tuple[object, ...]) -> None:
    server = parse_mail_server(address)
    assert (server.host, server.port, server.username, server.password.get_secret_value(), server.tls) == meaning


@pytest.mark.parametrize(
    "address",
    [
        "http://u:hunter2@mail.example.org",
        "smtp://u:hunter2@",
        "smtp://u:hunter2@mail.example.org:port",
        "smtp://u:hunter2@mail.example.org/path",
        "smtp://u:hunter2@mail.example.org?starttls=never",
        "smtp://u:hunter2@mail.example.org?tls=no",
        "smtps://u:hunter2@mail.example.org?starttls=never",
        "smtp://:hunter2@mail.example.org",
        "smtp://u:hunter2#@mail.example.org",
    ],
)
def test_a_wrong_address_is_refused_without_its_password(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTAL_EMAIL_URL", address)
    with pytest.raises(ValueError, match="PORTAL_EMAIL_URL") as refused:
        Conf(secret_key=KEY, demo=True)  # type: ignore[arg-type]  # as the environment gives it
    assert "hunter2" not in str(refused.value)
    assert KEY not in str(refused.value)


def test_the_password_is_in_no_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTAL_EMAIL_URL", "smtp://u:hunter2@mail.example.org")
    conf = Conf(secret_key=KEY, demo=True)  # type: ignore[arg-type]  # as above
    assert "hunter2" not in f"{conf!r} {conf} {conf.mail_server!r}"


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("a@example.org", True),
        ("Notebooks <a@example.org>", True),
        ("a@localhost", True),
        ("", False),
        ("Notebooks", False),
        ("a@example.org\nBcc: b@example.org", False),
        ("a b@example.org", False),
    ],
)
def test_what_may_be_a_sender(text: str, fits: bool) -> None:
    assert is_sender(text) is fits
