"""Codes of apps: the numbers of RFC 6238, clocks that differ, and codes that were used."""

from __future__ import annotations

import base64
import re

import pytest

from portal.accounts import totp

SECRET = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(("seconds", "code"), [(59, "287082"), (1111111109, "081804"), (20000000000, "353130")])
def test_the_codes_are_those_of_the_standards_appendix(seconds: int, code: str) -> None:
    assert totp.step_of(SECRET, code, seconds=seconds) == seconds // 30


@pytest.mark.parametrize(("drift", "accepted"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_one_step_of_drift_is_accepted_and_no_more(drift: int, accepted: bool) -> None:
    code = totp.code_at(SECRET, 1000 + drift)
    assert (totp.step_of(SECRET, code, seconds=30_000) == 1000 + drift) is accepted


def test_a_code_of_a_step_that_was_used_or_of_one_before_counts_no_more() -> None:
    assert totp.step_of(SECRET, totp.code_at(SECRET, 1000), seconds=30_000, after=1000) is None
    assert totp.step_of(SECRET, totp.code_at(SECRET, 999), seconds=30_000, after=1000) is None
    assert totp.step_of(SECRET, totp.code_at(SECRET, 1001), seconds=30_000, after=1000) == 1001


@pytest.mark.parametrize("typed", ["", "12345", "1234567", "abcdef", "１２３４５６", "\0" * 6])
def test_what_is_no_code_is_none(typed: str) -> None:
    assert totp.step_of(SECRET, typed, seconds=30_000) is None


def test_spaces_that_apps_show_do_not_matter() -> None:
    code = totp.code_at(SECRET, 1000)
    assert totp.step_of(SECRET, f" {code[:3]} {code[3:]} ", seconds=30_000) == 1000


def test_secrets_are_of_160_bits_and_differ() -> None:
    secrets = {totp.new_secret() for _ in range(50)}
    assert len(secrets) == 50
    assert {len(base64.b32decode(secret)) for secret in secrets} == {20}


def test_the_address_names_account_and_site_without_breaking_out() -> None:
    address = totp.address_of_secret("ABC", account="alice", issuer="Uni & Söhne?")
    assert address == "otpauth://totp/Uni%20%26%20S%C3%B6hne%3F%3Aalice?secret=ABC&issuer=Uni%20%26%20S%C3%B6hne%3F"


def test_the_picture_is_one_path_of_squares_within_its_size() -> None:
    qr = totp.qr_code("otpauth://totp/x?secret=ABC")
    places = [(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", qr.path)]
    assert "".join(f"M{x} {y}h1v1h-1z" for x, y in places) == qr.path
    assert all(4 <= x < qr.size - 4 and 4 <= y < qr.size - 4 for x, y in places)
