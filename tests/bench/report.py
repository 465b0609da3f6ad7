"""The page that a run of the benchmarks makes: a table of medians, and each target with its ratio."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass

FAST, PORTABLE, BY_SSH = "ours, fast", "ours, portable", "ours, fast, SSH"
NGINX, APACHE, CHP, SSH = "nginx", "Apache", "configurable-http-proxy", "ssh -N -L"


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
    Target(BY_SSH, SSH, "down MB/s", 1.5),
    Target(BY_SSH, SSH, "up MB/s", 1.2),
    Target(BY_SSH, SSH, "msgs/s", 0.95),
    Target(PORTABLE, CHP, "requests/s", 3),
    Target(PORTABLE, CHP, "msgs/s", 0.6),
)


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
    rounds: int,
    seconds: float,
    load: float,
) -> str:
    """The whole page. ``rounds`` is the least number of values behind a median, ``load`` the machine's load average."""
    columns = list(dict.fromkeys(column for _, column in medians))
    names = list(dict.fromkeys(name for name, _ in medians))
    lines = [
        "# The data path: figures, and how to repeat them",
        "",
        f"Measured on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} by `make bench`, on {os.cpu_count()} cores,",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}. Medians of {rounds}",
        f"interleaved rounds of {seconds:g} s each. Each proxy is one process bound to one core; the client and the",
        "server behind the proxy share the other, so very high rates are bounded by those two, not by the proxy.",
        f"The machine's load average during the run was {load:.1f} (its median): above about 2, other work ran beside",
        "this, and the figures say little about an idle machine.",
        "",
        f"| | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for name in names:
        cells = [f"{medians[name, column]:,.0f}" if (name, column) in medians else "–" for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| ours | beside | what | target | measured | |", "|---|---|---|---|---|---|"]
    lines += [verdict(target, medians) for target in TARGETS]
    if left_out or failures:
        lines += ["", "Left out or failed:", ""]
        lines += [f"- {text}" for text in left_out]
        lines += [f"- {name}: {text}" for name, text in failures.items()]
    lines += [
        "",
        "Not measured here: jupyter-server-proxy, an executed notebook cell, memory of idle WebSockets, and a",
        "long run (thousands of open WebSockets, a gibibyte through SSH, what is left over after random disconnects).",
        "",
    ]
    return "\n".join(lines)
