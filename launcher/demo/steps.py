"""What the demo prints: a line for each step with its time, a moving sign while it runs, a box at the end."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Sequence
from typing import TextIO

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_FRAMES = "|/-\\"
_QUIET_SECONDS = 10.0
"""Without a terminal, a step that takes longer says so once in this time."""


def _width(text: str) -> int:
    """Columns on a terminal; Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


class Steps:
    """Prints steps one after another."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        encoding = (getattr(self._stream, "encoding", None) or "ascii").lower().replace("-", "")
        self._unicode = encoding == "utf8"
        self._terminal = self._stream.isatty()
        self._label = ""
        self._began_at = 0.0
        self._shown_at = 0.0
        self._frame = 0

    def begin(self, label: str, *, since: float | None = None) -> None:
        """A step begins; ``since`` (time.monotonic) when its work began earlier."""
        self._label, self._shown_at = label, time.monotonic()
        self._began_at = since or self._shown_at
        self.tick()

    def tick(self) -> None:
        """The step goes on. Call it often; it draws at most ten times a second."""
        moment = time.monotonic()
        if self._terminal:
            if moment - self._shown_at >= 0.1 or self._frame == 0:
                frames = _FRAMES if self._unicode else _PLAIN_FRAMES
                sign = frames[self._frame % len(frames)]
                self._frame += 1
                self._shown_at = moment
                self._write(f"\r\x1b[2K  {sign} {self._label}  {moment - self._began_at:.0f} s")
        elif moment - self._shown_at >= _QUIET_SECONDS:
            self._shown_at = moment
            self._write(f"    {self._label}: {moment - self._began_at:.0f} s so far\n")

    def done(self, note: str = "") -> None:
        """The step is done."""
        self._end("✓" if self._unicode else "ok", note)

    def failed(self, note: str = "") -> None:
        """The step has failed."""
        self._end("✗" if self._unicode else "FAILED", note)

    def _end(self, sign: str, note: str) -> None:
        seconds = time.monotonic() - self._began_at
        start = "\r\x1b[2K" if self._terminal else ""
        padding = " " * max(1, 34 - _width(self._label))
        self._write(f"{start}  {sign} {self._label}{padding}{seconds:5.1f} s{'   ' + note if note else ''}\n")
        self._label, self._frame = "", 0

    def say(self, text: str = "") -> None:
        """A line of its own."""
        if self._terminal and self._label:
            self._write("\r\x1b[2K")
        self._write(f"{text}\n")

    def box(self, lines: Sequence[str]) -> None:
        """Lines in a frame."""
        width = max(_width(line) for line in lines) + 4
        bar, side, corners = ("─", "│", "┌┐└┘") if self._unicode else ("-", "|", "++++")
        self.say(corners[0] + bar * width + corners[1])
        for line in lines:
            self.say(f"{side}  {line}{' ' * (width - 2 - _width(line))}{side}")
        self.say(corners[2] + bar * width + corners[3])

    def _write(self, text: str) -> None:
        if not self._unicode:
            text = text.encode("ascii", "replace").decode()
        self._stream.write(text)
        self._stream.flush()
