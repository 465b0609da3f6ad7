"""People who launch and stop sessions through the API while the portal falls over around them."""

from __future__ import annotations

import collections
import http.client
import json
from typing import Any

from tests.demo_process import StartedDemo

TIMEOUT_SECONDS = 8


class Person:
    """Somebody with a personal token. A request that fails is counted by how, and never sent again by itself."""

    def __init__(self, demo: StartedDemo, name: str, token: str, answers: collections.Counter[str]) -> None:
        self.name = name
        self._port = demo.running.port
        self._token = token
        self._answers = answers

    def launch(self, title: str) -> None:
        """Ask for a small session. Whether there is one then, the database knows."""
        values = {"cores": 1, "memory": "512 MB", "hours": 1, "title": title}
        self._ask("POST", "/api/v1/sessions", {"app": "jupyter", "values": values})

    def stop(self, session_id: str) -> None:
        """Ask for the end of one of one's sessions."""
        self._ask("DELETE", f"/api/v1/sessions/{session_id}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_SECONDS)
        headers = {"Host": f"localhost:{self._port}", "Authorization": f"Bearer {self._token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            link.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
            answer = link.getresponse()
            answer.read()
            self._answers[f"{method} {answer.status}"] += 1
        except (OSError, http.client.HTTPException):
            self._answers[f"{method} unanswered"] += 1
        finally:
            link.close()
