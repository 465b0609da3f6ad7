"""Other systems' words in the log: what they say stays, what was typed does not."""

from __future__ import annotations

import pytest

from portal.accounts.quoting import LEFT_OUT, MOST_LETTERS, quoted

SECRET = "Correct horse bättery"


def test_words_stay_on_one_line_and_have_an_end() -> None:
    said = "Can't contact LDAP server\n\x1b[31mroot signed in\x00" + "x" * 1000
    assert quoted(said, without=[SECRET]).startswith("Can't contact LDAP server [31mroot signed in xxx")
    assert len(quoted(said, without=[SECRET])) == MOST_LETTERS


@pytest.mark.parametrize(
    "said",
    [
        f"no such password: {SECRET}",
        f"no such password: {SECRET[:9]}",  # cut
        f"no such password: …{SECRET[-6:]} is wrong",
        "no such password: correct  horse  bättery",
        SECRET.upper(),
        "CorrectHorseBättery",
    ],
)
def test_words_that_repeat_what_was_typed_are_left_out(said: str) -> None:
    assert quoted(said, without=["123456", SECRET]) == LEFT_OUT


def test_a_short_secret_counts_as_a_whole() -> None:
    assert quoted("the code 1234 is old", without=["1234"]) == LEFT_OUT
    assert quoted("the code 1243 is old", without=["1234"]) == "the code 1243 is old"


def test_nothing_typed_hides_nothing() -> None:
    assert quoted("invalid credentials", without=["", "  "]) == "invalid credentials"
