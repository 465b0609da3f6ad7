"""Shows findings on a terminal, line by line as they come, or as one JSON document at the end."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TextIO

from launcher.doctor.findings import Finding, Outcome, exit_status

_COLOURS = {Outcome.OK: "32", Outcome.SKIPPED: "2", Outcome.DOUBTFUL: "33;1", Outcome.BROKEN: "31;1"}
_WIDTH = 27


class Report:
    """Findings for whoever runs the command; in English, like every command."""

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self.findings: list[Finding] = []
        self._stream = stream
        self._as_json = as_json
        self._in_colour = stream.isatty()

    def head(self, text: str) -> None:
        """What the findings to come are about."""
        if not self._as_json:
            self._stream.write(f"\n{text}\n" if self.findings else f"{text}\n")

    def add(self, findings: Iterable[Finding]) -> None:
        """Show findings as they are made."""
        for finding in findings:
            self.findings.append(finding)
            if not self._as_json:
                self._stream.write(self._lines(finding))
                self._stream.flush()

    def end(self) -> int:
        """The summary. Returns the exit status: 0 all fine, 1 something doubtful, 2 something broken."""
        status = exit_status(self.findings)
        if self._as_json:
            document = {"exit_status": status, "findings": [as_dict(finding) for finding in self.findings]}
            self._stream.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
            return status
        counts = {outcome: sum(finding.outcome is outcome for finding in self.findings) for outcome in Outcome}
        parts = [f"{number} {outcome}" for outcome, number in reversed(counts.items()) if number]
        self._stream.write(f"\n{', '.join(parts)}.\n")
        return status

    def _lines(self, finding: Finding) -> str:
        said = finding.said
        word = f"{said.outcome:<12}"
        if self._in_colour:
            word = f"\x1b[{_COLOURS[said.outcome]}m{word}\x1b[0m"
        lines = [f"  {word}{finding.name.english():<{_WIDTH}} {said.what.english()}"]
        lines += [f"{'':14}-> {said.cure.english()}"] if said.cure else []
        lines += [f"{'':14}   $ {said.command}"] if said.command else []
        return "\n".join(lines) + "\n"


def as_dict(finding: Finding) -> dict[str, Any]:
    """A finding for programs."""
    said = finding.said
    return {
        "id": finding.id,
        "cluster": finding.cluster,
        "name": finding.name.english(),
        "outcome": str(said.outcome),
        "what": said.what.english(),
        "cure": said.cure.english() if said.cure else "",
        "command": said.command,
        "seconds": round(finding.seconds, 2),
    }
