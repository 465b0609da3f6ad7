"""The audit log as a file: CSV for spreadsheets, JSON lines for machines and for checking the chain
elsewhere. Pure.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable

from portal.audit import chain
from portal.audit.chain import Link

COLUMNS = (
    "sequence",
    "at",
    "name",
    "version",
    "actor",
    "address",
    "session_id",
    "data",
    "previous_hash",
    "hash",
)


def csv_lines(links: Iterable[Link]) -> str:
    """The rows as CSV without the heading."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for link in links:
        writer.writerow(
            (
                link.sequence,
                chain.utc_text(link.at),
                _inert(link.name),
                link.version,
                _inert(link.actor),
                _inert(link.address),
                _inert(link.session_id),
                _inert(link.data_json),
                _inert(link.previous_hash),
                _inert(link.hash),
            )
        )
    return text.getvalue()


def json_lines(links: Iterable[Link]) -> str:
    """The rows as JSON, one object a line: each line without its ``hash`` member hashes to it."""
    return "".join(_json_line(link) + "\n" for link in links)


def _json_line(link: Link) -> str:
    try:
        return chain.canonical({**chain.document(link), "hash": link.hash})
    except (ValueError, RecursionError):  # somebody changed the row; an export shows what is there
        whole = {name: getattr(link, name) for name in Link.__slots__ if name not in ("at", "data_json")}
        return chain.canonical({**whole, "at": chain.utc_text(link.at), "data": link.data_json})


def _inert(text: str) -> str:
    """``text`` as no spreadsheet takes for a formula: a stranger may have chosen it as a name to sign in
    with.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


FORMATS: dict[str, tuple[str, str, Callable[[Iterable[Link]], str]]] = {
    "csv": ("text/csv; charset=utf-8", ",".join(COLUMNS) + "\r\n", csv_lines),
    "jsonl": ("application/jsonl; charset=utf-8", "", json_lines),
}
"""By the word in the address: content type, first line, how rows become text."""
