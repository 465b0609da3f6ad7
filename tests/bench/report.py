"""The page that a run of the benchmarks makes: a table of medians, and each target with its ratio."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from dataclasses import dataclass

FAST, PORTABLE, BY_SSH = "ours, fast", "ours, portable", "ours, fast, SSH"
NGINX, APACHE, CHP, SSH = "nginx", "Apache", "configurable-http-proxy", "ssh -N -L"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
"""``make bench`` writes between these lines of the page; what stands around them is written by hand."""


@dataclass(frozen=True, slots=True)
class Target:
    """``ratio``: how many times better ``ours`` must be than ``theirs``; ``at_most``: how many times more it may be."""

    ours: str
    theirs: str
    column: str
    ratio: float
    at_most: bool = False
    lower_is_better: bool = False


TARGETS = (
    Target(FAST, CHP, "requests/s", 3.5),
    Target(FAST, APACHE, "requests/s", 1.1),
    Target(FAST, NGINX, "requests/s", 0.27),
    Target(FAST, CHP, "msgs/s", 1.6),
    Target(FAST, NGINX, "msgs/s", 0.7),
    Target(FAST, CHP, "down MB/s", 3),
    Target(FAST, CHP, "up MB/s", 2),
    Target(FAST, CHP, "beside p50 µs", 20, lower_is_better=True),
    Target(FAST, NGINX, "latency p50 µs", 1.3, at_most=True),
    Target(BY_SSH, SSH, "requests/s", 0.75),
    Target(BY_SSH, SSH, "latency p99 µs", 20, lower_is_better=True),
    Target(BY_SSH, SSH, "apart p99 µs", 20, lower_is_better=True),
    Target(BY_SSH, SSH, "down MB/s", 1.5),
    Target(BY_SSH, SSH, "up MB/s", 1.2),
    Target(BY_SSH, SSH, "msgs/s", 0.95),
    Target(BY_SSH, SSH, "cell p50 µs", 7, lower_is_better=True),
    Target(PORTABLE, CHP, "requests/s", 3),
    Target(PORTABLE, CHP, "msgs/s", 0.6),
)


LEAST_ROUNDS = 3
"""With fewer, a verdict is marked."""
MOST_AUTHORISATION = 15.0
"""µs for a request whose answer is known."""
NOT_MEASURED = (
    "memory: `make endurance`",
    "what is left open after 10,000 mixed requests and 1,000 broken WebSockets: c60 of `make conformance`",
)


def put(page: str, measured: str) -> str:
    """``page`` with ``measured`` between its marks; a page without them is kept behind it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        before, after = "", f"\n\n{page}" if page else "\n"
    return f"{before}{BEGIN}\n{measured.strip()}\n{END}{after}"


def figure(value: float) -> str:
    """With three digits at least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def verdict(target: Target, medians: dict[tuple[str, str], float]) -> str:
    """A row of the table of targets."""
    mine, other = medians.get((target.ours, target.column)), medians.get((target.theirs, target.column))
    wanted = f"{'≤' if target.at_most else '≥'} {target.ratio} ×"
    start = f"| {target.ours} | {target.theirs} | {target.column} | {wanted} |"
    if not mine or not other:
        return f"{start} – | not measured |"
    ratio = other / mine if target.lower_is_better else mine / other
    is_met = ratio <= target.ratio if target.at_most else ratio >= target.ratio
    return f"{start} {ratio:.2f} × | {'met' if is_met else '**missed**'} |"


def page(
    medians: dict[tuple[str, str], float],
    left_out: list[str],
    failures: dict[str, str],
    *,
    rounds: dict[str, int],
    seconds: float,
    loads: list[float],
    versions: list[str],
) -> str:
    """The whole page. ``rounds`` says how many values a column's medians have at least, ``loads`` is load averages."""
    usual = f"{statistics.median(loads):.1f} (lowest {min(loads):.1f}, highest {max(loads):.1f})"
    columns = list(dict.fromkeys(column for _, column in medians))
    names = list(dict.fromkeys(name for name, _ in medians))
    lines = [
        "# The data path: figures, and how to repeat them",
        "",
        f"Measured on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} by `make bench`, on {os.cpu_count()} cores,",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}. Medians of the",
        f"interleaved rounds, as many as stand behind a column's name, of {seconds:g} s or more. Each proxy",
        "is bound to one core, and is one process but for Apache. The measuring client, the server behind the",
        "proxy and, on the ways through SSH, sshd",
        "share the other core; so high rates are bounded by that core, and the row without a proxy is the ceiling.",
        "*latency*: 10 kB over one connection; *apart*: the same from a server that writes the head and, a millisecond",
        "later, the body, which sshd holds back until the head is acknowledged.",
        "*beside*: the round trip of a WebSocket beside a download at full speed, each end of both a process of its",
        "own; the download's ends cost next to nothing, and the WebSocket's go before them, so that the proxy is what",
        "is measured. *cell*: from the execution of a cell to its result, with a real Jupyter and kernel at the other",
        "end: behind ours the one of a job, behind `ssh -N -L` plain Jupyter. *authorisation*: the decision on a",
        "request whose answer is known, alone; it asks no database and gives way to no other task, or it fails.",
        "Behind the proxies, nginx gives the short answers (200 B, 10 kB); a server of our own echoes frames and",
        "pours long bodies.",
        f"Versions: {', '.join(versions)}.",
        "",
        f"Median load average: {usual}, the benchmark's own share included. Where it is above 2, these figures were",
        "**taken on a loaded two-core machine**: they bear no comparison with other runs, and a ratio near its",
        "target may fall on either side of it.",
        "",
        f"| | {' | '.join(f'{column} ({rounds[column]})' for column in columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for name in names:
        cells = [f"{figure(medians[name, column])}" if (name, column) in medians else "–" for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| ours | beside | what | target | measured | |", "|---|---|---|---|---|---|"]
    for target in TARGETS:
        is_enough = rounds.get(target.column, 0) >= LEAST_ROUNDS
        lines.append(verdict(target, medians).removesuffix(" |") + (" |" if is_enough else ", too few rounds |"))
    mine = medians.get((FAST, "authorisation µs"))
    if mine is not None:
        word = "met" if mine <= MOST_AUTHORISATION else "**missed**"
        lines.append(f"| {FAST} | – | authorisation µs | ≤ {MOST_AUTHORISATION:g} | {mine:.3g} | {word} |")
    if left_out or failures:
        lines += ["", "Left out or failed:", ""]
        lines += [f"- {text}" for text in left_out]
        lines += [f"- {name}: {' '.join(text.split())}" for name, text in failures.items()]
    lines += ["", "Targets of the proxy that this benchmark does not measure:", ""]
    lines += [f"- {what}" for what in NOT_MEASURED]
    return "\n".join([*lines, ""])
