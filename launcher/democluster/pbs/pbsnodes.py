"""``pbsnodes``: the execution hosts, as text, table, dsv and JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from launcher.democluster.pbs.attributes import Attribute, node_attributes
from launcher.democluster.pbs.calls import Answer, Call, encoded, refused, version_answer
from launcher.democluster.pbs.errors import UsageError
from launcher.democluster.pbs.formats import dsv_record, json_document, shown
from launcher.democluster.pbs.nodes import NodeState
from launcher.democluster.pbs.options import getopt
from launcher.democluster.pbs.scheduler import Scheduler
from launcher.democluster.pbs.tables import node_table

USAGE = (
    "usage:\n\tpbsnodes [-a[v]] [-S[j][L]] [-F format] [-D delim]\n"
    "\tpbsnodes [-v] [-S[j][L]] [-F format] [-D delim] node...\n\tpbsnodes --version\n"
)


async def pbsnodes(call: Call, scheduler: Scheduler) -> Answer:
    """Show nodes."""
    if call.arguments == ("--version",):
        return version_answer()
    line = getopt(call.arguments, "avSjLlHF:D:")
    if line.complaints or not (call.arguments and (line.has("a") or line.operands or line.has("l"))):
        return refused("pbsnodes", UsageError("\npbsnodes: ".join(line.complaints) or "no node named"), USAGE)
    scheduler.nodes.set_down(scheduler.faults.nodes_down)
    states = scheduler.nodes.states
    wanted = list(states) if line.has("a") or line.has("l") else line.operands
    if line.has("l"):
        wanted = [name for name in wanted if states[name].is_down]
    known = [states[name] for name in wanted if name in states]
    if line.has("S"):
        return Answer(stdout=encoded(node_table(known)))
    form = line.last("F").lower()
    if form == "json":
        records = [(name, _json_entry(states.get(name))) for name in wanted]
        return Answer(stdout=json_document("nodes", records, int(time.time())))
    if form == "dsv":
        delimiter = line.last("D", "|")
        dsv = (dsv_record(f"Name: {s.node.name}", _flat(s), delimiter) for s in known)
        return Answer(stdout=b"".join(dsv))
    text = b"".join(_text(state) for state in known)
    missing = [f"Node: {name},  Error: Unknown node \n" for name in wanted if name not in states]
    return Answer(stdout=text, stderr=encoded("".join(missing)), exit_code=1 if missing else 0)


def _cores() -> int:
    return os.cpu_count() or 1


def _json_entry(state: NodeState | None) -> Sequence[Attribute | tuple[str, Sequence[str]]]:
    if state is None:
        return [Attribute("Error", "Unknown node ")]
    entry: list[Attribute | tuple[str, Sequence[str]]] = list(node_attributes(state, _cores()))
    if state.jobs:
        entry.insert(4, ("jobs", list(state.jobs)))
    return entry


def _flat(state: NodeState) -> list[Attribute]:
    entry = [a for a in node_attributes(state, _cores()) if a.value]
    if state.jobs:
        entry.insert(4, Attribute("jobs", ", ".join(f"{job_id}/0" for job_id in state.jobs)))
    return entry


def _text(state: NodeState) -> bytes:
    lines = [state.node.name.encode()]
    for attribute in _flat(state):
        name = f"{attribute.name}.{attribute.resource}" if attribute.resource else attribute.name
        lines.append(b"     " + name.encode() + b" = " + shown(attribute.value))
    return b"\n".join(lines) + b"\n\n"
