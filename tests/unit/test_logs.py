"""Logs that nobody outside can fill, and in which no secret stands."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from django.test import Client

from portal.logs import OfTheServer, Sparse, redact


def record(name: str, level: int, text: str, *values: object, file: str = "a.py") -> logging.LogRecord:
    return logging.LogRecord(name, level, f"/lib/{file}", 1, text, values, None)


def test_secrets_are_hidden_and_long_values_cut() -> None:
    event = redact(None, "", {"entry_code": "abc", "Cookie": "abc", "path": "x" * 3000})
    assert event["entry_code"] == event["Cookie"] == "[hidden]"
    assert len(event["path"]) == 2001


def test_a_warning_is_told_by_its_kind_once_and_never_by_what_a_visitor_said(caplog: pytest.LogCaptureFixture) -> None:
    sparse = Sparse()
    for number in range(9):
        assert not sparse.filter(record("django.request", logging.WARNING, "%s: %s", "Not Found", f"/<{number}>"))
    assert not sparse.filter(record("django.security.csrf", logging.WARNING, "Forbidden (%s): %s", "no cookie", "/x"))
    assert not sparse.filter(record("uvicorn.error", logging.WARNING, "after %d seconds", 5))
    assert [line.getMessage() for line in caplog.records] == [
        "django.request: Not Found: …", "django.security.csrf: Forbidden (no cookie): …",
        "uvicorn.error: after %d seconds",
    ]  # fmt: skip


def test_an_error_passes_with_all_that_it_says(caplog: pytest.LogCaptureFixture) -> None:
    error = record("django.request", logging.ERROR, "%s: %s", "Internal Server Error", "/x")
    assert Sparse().filter(error)
    assert error.getMessage() == "Internal Server Error: /x"
    assert not caplog.records


def test_of_uvicorns_lines_those_of_the_process_pass_and_no_handshake_nor_its_head() -> None:
    of_the_server = OfTheServer()
    assert of_the_server.filter(record("uvicorn.error", logging.INFO, "Shutting down", file="uvicorn/server.py"))
    for level, text in ((logging.INFO, '%s - "WebSocket %s" 403'), (logging.DEBUG, "< %s: %s")):
        for file in ("uvicorn/protocols/websockets/websockets_sansio_impl.py", "websockets/server.py"):
            assert not of_the_server.filter(record("uvicorn.error", level, text, "a", "b", file=file))
    assert of_the_server.filter(record("uvicorn.error", logging.ERROR, "Exception in ASGI application"))


def test_pages_that_do_not_exist_are_told_once(client: Client, db: None, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(20):
        assert client.get(f"/no/such/page/{number}").status_code == 404
    told = [line.getMessage() for line in caplog.records]  # by a filter that other tests' requests have passed, too
    assert len([line for line in told if "Not Found" in line]) <= 1
    assert not any("/no/such/page" in line for line in told)


def test_uvicorns_own_lines_come_in_our_form() -> None:
    program = (
        "import logging; from uvicorn import Config; from portal.logs import configure_logs\n"
        "Config('x:y'); configure_logs(log_format='json', level='INFO')\n"
        "logging.getLogger('uvicorn.error').handle(logging.LogRecord("
        "'uvicorn.error', 20, 'uvicorn/server.py', 1, 'Started', (), None))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert [line for line in done.stderr.splitlines() if '"event": "Started"' in line] == done.stderr.splitlines()
    assert done.stderr
