"""Where somebody works in a Jupyter server, and the page that opens there again. Pure; reads it as hostile input.

The answer to ``api/sessions`` lists the open notebooks with their kernels. The most recently active one is where its
user was. What is odd about the answer is left out; nothing depends on it.
"""

from __future__ import annotations

import datetime as dt
import re
from urllib.parse import quote

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_BYTES = 256 * 1024
"""Of an answer to ``api/sessions``. An open notebook takes about 500 bytes."""
MAX_PATH = 1024
"""Characters of a path."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _Kernel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    last_activity: AwareDatetime
    execution_state: str = Field(default="", max_length=40)


class _Open(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str = Field(max_length=40)
    path: str = Field(max_length=MAX_PATH)
    kernel: _Kernel


_ENTRIES = TypeAdapter(list[object])


def is_path(text: str) -> bool:
    """Whether ``text`` is a path below the server's folder: relative, no "..", no control characters."""
    if not 0 < len(text) <= MAX_PATH or text.startswith("/") or "\\" in text or _CONTROL.search(text):
        return False
    return not any(part in ("", ".", "..") for part in text.split("/"))


def latest_notebook(body: bytes) -> str:
    """The path of the notebook that was worked in last; empty when there is none or the answer is odd.

    Of two that were active at the same time the busy one counts.
    """
    if len(body) > MAX_BYTES:
        return ""
    try:
        entries = _ENTRIES.validate_json(body)
    except (ValidationError, RecursionError):
        return ""
    found: list[tuple[dt.datetime, bool, str]] = []
    for entry in entries:
        try:
            seen = _Open.model_validate(entry)
        except (ValidationError, RecursionError):
            continue
        if seen.type == "notebook" and is_path(seen.path):
            found.append((seen.kernel.last_activity, seen.kernel.execution_state == "busy", seen.path))
    return max(found)[2] if found else ""


def page_of(path: str, *, base_url: str, server: str) -> str:
    """The address below the server's own host at which it opens ``path``; empty where there is no such page.

    ``server``: its name and version, as in the connection file; a classic one ("notebook 6.5") has other addresses.
    """
    if not server or not is_path(path):
        return ""
    page = "notebooks" if server.startswith("notebook ") else "lab/tree"
    return f"{base_url}{page}/{quote(path, safe='/')}"
