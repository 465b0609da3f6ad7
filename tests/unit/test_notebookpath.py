"""Which notebook was worked in last, from an answer that may be anything, and the address that opens it again."""

from __future__ import annotations

import json

import pytest

from launcher.notebookpath import MAX_BYTES, is_path, latest_notebook, page_of


def entry(path: str, at: str = "2027-03-01T12:00:00Z", **changes: object) -> dict[str, object]:
    kernel = {"id": "k", "last_activity": at, "execution_state": "idle", "connections": 1}
    return {"id": "s", "type": "notebook", "name": path, "path": path, "kernel": kernel} | changes


def latest(*entries: object) -> str:
    return latest_notebook(json.dumps(entries).encode())


def test_the_notebook_that_was_active_last_counts() -> None:
    old, new = entry("old.ipynb"), entry("sub/new one.ipynb", "2027-03-01T12:00:01.500000Z")
    assert latest(old, new) == latest(new, old) == "sub/new one.ipynb"


def test_consoles_are_no_notebooks() -> None:
    assert latest(entry("console-1", type="console")) == ""


@pytest.mark.parametrize(
    "odd",
    [
        "text",
        None,
        [],
        {},
        entry("a.ipynb", kernel=None),
        entry("a.ipynb", "yesterday"),
        entry("a.ipynb", "2027-03-01T12:00:00"),
        entry("../a.ipynb"),
        entry("/etc/passwd"),
        entry("x" * 1025),
        {**entry("a.ipynb"), "path": 7},
    ],
)
def test_odd_entries_are_left_out(odd: object) -> None:
    assert latest(odd) == ""
    assert latest(odd, entry("good.ipynb", "2020-01-01T00:00:00Z")) == "good.ipynb"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"[", b"\xff", b"[" * 100_000, b" " * MAX_BYTES + b"[]", b'{"path": "a"}']
)
def test_odd_answers_tell_nothing(body: bytes) -> None:
    assert latest_notebook(body) == ""


@pytest.mark.parametrize("path", ["a.ipynb", "sub/ä 中.ipynb", "%2e%2e/a", "a?b#c", "...", "a..b/c"])
def test_paths_below_the_folder_are_paths(path: str) -> None:
    assert is_path(path)


@pytest.mark.parametrize(
    "path", ["", "/a", "../a", "a/../b", "a/..", ".", "a//b", "a/", "a\nb", "a\x00", "a\\b", "\u2028"]
)
def test_what_leads_elsewhere_is_no_path(path: str) -> None:
    assert not is_path(path)


@pytest.mark.parametrize(
    ("server", "base_url", "page"),
    [
        ("jupyter_server 2.21.1", "/", "/lab/tree/sub/a%20%3F%23%25b.ipynb"),
        ("jupyter_server 1.24.0", "/s/x/", "/s/x/lab/tree/sub/a%20%3F%23%25b.ipynb"),
        ("notebook 6.5.7", "/", "/notebooks/sub/a%20%3F%23%25b.ipynb"),
        ("", "/", ""),
    ],
)
def test_the_page_that_opens_a_notebook(server: str, base_url: str, page: str) -> None:
    assert page_of("sub/a ?#%b.ipynb", base_url=base_url, server=server) == page


def test_there_is_no_page_for_what_is_no_path() -> None:
    assert page_of("../a", base_url="/", server="jupyter_server 2.0") == ""
