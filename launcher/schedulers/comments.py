"""Why a job waits, from the scheduler's own words: a code and numbers, from which the site makes a sentence.
Pure.

PBS puts sentences into ``comment``, Slurm single words into ``Reason``. What nobody has translated yet is
``waiting.other``: the words themselves are shown to those who ask for details.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_LIMIT = 2_000


@dataclass(frozen=True, slots=True)
class WaitReason:
    """``code`` is stable; ``params`` may hold ``resource``, ``requested``, ``available`` and ``total`` as
    text.
    """

    code: str
    params: Mapping[str, object] = field(default_factory=dict)


_SLURM = {
    "None": "starting",  # not looked at yet, or about to start
    "Resources": "nodes_busy",
    "Priority": "priority",
    "Dependency": "dependency",
    "DependencyNeverSatisfied": "never",
    "BeginTime": "until",
    "JobHeldUser": "held",
    "JobHeldAdmin": "held",
    "JobHoldMaxRequeue": "held",
    "Prolog": "starting",
    "Cleaning": "starting",
    "NodeDown": "nodes_down",
    "ReqNodeNotAvail": "nodes_down",
    "Reservation": "maintenance",
    "ReservationDeleted": "never",
    "PartitionDown": "queue_stopped",
    "PartitionInactive": "queue_stopped",
    "PartitionConfig": "never",  # seen: 64 cores asked of hosts with two
    "PartitionNodeLimit": "never",
    "PartitionTimeLimit": "never_time",
    "BadConstraints": "never",
    "InvalidAccount": "never_allowed",
    "InvalidQOS": "never_allowed",
    "AccountNotAllowed": "never_allowed",
    "QOSNotAllowed": "never_allowed",
    "Licenses": "licenses_busy",
    "JobArrayTaskLimit": "user_limit",
}
"""Reasons of Slurm, one word each (``man squeue``, "Job reason codes"); limits follow a pattern, see below.
"""

_SLURM_LIMIT = re.compile(r"(Assoc|QOS)(Grp|Max)(\w{0,80})")
_MAINTENANCE = re.compile(r"reserved for maint", re.IGNORECASE)
_NEVER = re.compile(r"Can Never Run\b|PartitionConfig\b|would never run", re.IGNORECASE)
_AMOUNT = re.compile(
    r"Insufficient amount of (?:server |queue )?resource:? ?([A-Za-z_][\w.]{0,63})"
    r"(?: \(R: ([\w.]{1,32}) A: ([\w.]{1,32}) T: ([\w.]{1,32})\))?"
)
_BUSY_BY_RESOURCE = {"ncpus": "cores_busy", "mem": "memory_busy", "vmem": "memory_busy", "ngpus": "gpus_busy"}

_PBS = (
    # The order matters: what stands first is the more exact.
    (re.compile(r"Job held by|job held,|Job is held|held by (?:operator|system)", re.IGNORECASE), "held"),
    (
        re.compile(r"Queue not started|Queue .{0,80} not started|Queue is stopped", re.IGNORECASE),
        "queue_stopped",
    ),
    (re.compile(r"Scheduling (?:is )?(?:off|disabled)", re.IGNORECASE), "queue_stopped"),
    (re.compile(r"User has reached|user's? .{0,80}limit|per-user limit|exceed user ", re.IGNORECASE), "user_limit"),
    (
        re.compile(
            r"(?:Group|Project) has reached|per-(?:group|project) limit|exceed (?:group|project) ", re.IGNORECASE
        ),
        "project_limit",
    ),
    (
        re.compile(r"(?:job|running) limit has been reached|limit reached|would exceed .{0,80}limit", re.IGNORECASE),
        "queue_limit",
    ),
    (re.compile(r"Not enough total nodes", re.IGNORECASE), "never"),
    (
        re.compile(r"Not enough (?:free )?nodes|node is in use|No available resources", re.IGNORECASE),
        "nodes_busy",
    ),
    (re.compile(r"dedicated time|prime-?time|maintenance", re.IGNORECASE), "maintenance"),
    (re.compile(r"reservation or top job|starving job|higher priority|fairshare", re.IGNORECASE), "priority"),
    (re.compile(r"depend", re.IGNORECASE), "dependency"),
    (re.compile(r"node down|nodes? (?:is|are) down|offline", re.IGNORECASE), "nodes_down"),
    (re.compile(r"Job was sent for execution|Job run at|Job Array Began", re.IGNORECASE), "starting"),
)


def explain(comment: str) -> WaitReason:
    """The reason in ``comment``, ``waiting.other`` when there is none that we know."""
    words = comment[:_LIMIT].strip()
    if not words:
        return WaitReason("waiting.other")
    amount = _amount(words)
    if _NEVER.match(words):
        return WaitReason("waiting.never", amount)
    slurm_word = words.strip("()").split(",")[0].split(" ")[0]
    if slurm_word in _SLURM:
        is_kept_free = slurm_word == "ReqNodeNotAvail" and _MAINTENANCE.search(words)
        return WaitReason("waiting.maintenance" if is_kept_free else f"waiting.{_SLURM[slurm_word]}")
    if limit := _SLURM_LIMIT.fullmatch(slurm_word):
        return WaitReason(f"waiting.{_slurm_limit(limit[2], limit[3])}")
    if amount:
        return WaitReason(f"waiting.{_BUSY_BY_RESOURCE.get(str(amount['resource']), 'resource_busy')}", amount)
    for pattern, code in _PBS:
        if pattern.search(words):
            return WaitReason(f"waiting.{code}")
    return WaitReason("waiting.other")


def _slurm_limit(whose: str, what: str) -> str:
    """A limit by Slurm's name for it: ``Grp`` is everybody's together, ``PerJob`` what one job may ask for."""
    if "PerJob" in what:
        return "never_time" if "Wall" in what else "never_limit"
    if "Minutes" in what and "Run" not in what:
        return "time_used_up"
    return "project_limit" if whose == "Grp" else "user_limit"


def is_hopeless(reason: WaitReason) -> bool:
    """Whether the job will never start as it is."""
    return reason.code.startswith("waiting.never")


def _amount(words: str) -> dict[str, object]:
    match = _AMOUNT.search(words)
    if not match:
        return {}
    names = ("resource", "requested", "available", "total")
    return {name: value for name, value in zip(names, match.groups(), strict=True) if value is not None}
