"""Runs one cell in a session's server as JupyterLab does: through the proxy, with the server's own XSRF
check.

The messages are those of https://jupyter-client.readthedocs.io/en/stable/messaging.html, as JSON over the
kernel's WebSocket.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import connect
from websockets.typing import Origin

from launcher.demo.browser import Browser

CELL_SECONDS = 60.0


class CellError(Exception):
    """The cell did not run; the text says where it stopped."""


def run_cell(browser: Browser, address: str, source: str) -> str:
    """The text that ``source`` gives in a fresh kernel of the server at ``address``, which has no slash at its end.
    The kernel is ended afterwards.
    """
    page = browser.get(f"{address}/lab")
    if page.status != 200:
        raise CellError(f"JupyterLab's page answered {page.brief}")
    headers = {"Content-Type": "application/json", "X-XSRFToken": browser.cookies(address).get("_xsrf", "")}
    made = browser.request("POST", f"{address}/api/kernels", body=b"{}", headers=headers)
    if made.status != 201:
        raise CellError(f"creating a kernel answered {made.brief}")
    document = made.json()
    kernel = str(document["id"]) if isinstance(document, dict) else ""
    try:
        return _execute(browser, address, kernel, source)
    finally:
        browser.request("DELETE", f"{address}/api/kernels/{kernel}", headers=headers)


def _execute(browser: Browser, address: str, kernel: str, source: str) -> str:
    session = uuid.uuid4().hex
    parts = urlsplit(address)
    with connect(
        f"ws://{parts.netloc}{parts.path}/api/kernels/{kernel}/channels?session_id={session}",
        sock=browser.dial(address),
        origin=Origin(f"{parts.scheme}://{parts.netloc}"),
        additional_headers={"Cookie": browser.cookie_header(address)},
        compression=None,
        open_timeout=CELL_SECONDS,
        proxy=None,
    ) as link:
        request = _message(session, source)
        link.send(json.dumps(request))
        deadline = time.monotonic() + CELL_SECONDS
        while True:
            answer = json.loads(link.recv(max(0.1, deadline - time.monotonic())))
            if answer["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                continue
            content = answer["content"]
            if answer["msg_type"] == "execute_result":
                return str(content["data"]["text/plain"])
            if answer["msg_type"] == "error":
                raise CellError(f"the cell raised {content['ename']}: {content['evalue']}")


def _message(session: str, source: str) -> dict[str, Any]:
    header: dict[str, object] = {
        "msg_id": uuid.uuid4().hex,
        "session": session,
        "username": "check",
        "date": datetime.now(UTC).isoformat(),
        "msg_type": "execute_request",
        "version": "5.3",
    }
    content: dict[str, object] = {
        "code": source,
        "silent": False,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
        "buffers": [],
    }
