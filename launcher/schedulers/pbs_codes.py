"""What the exit codes of PBS commands mean. Pure; shared by the OpenPBS and the TORQUE adapter.

A PBS command exits with its server's error number modulo 256: errors begin at 15001, which gives 153.
Measured on OpenPBS 23.06 where a comment says "seen"; the others follow from the error numbers in its
reference guide.
"""

from __future__ import annotations

import re
from typing import NoReturn

from launcher.schedulers.base import CommandResult, NotPermitted, SchedulerUnavailable, SubmitRejected
from launcher.schedulers.values import printable

USAGE = 2  # seen: an option the client does not know, or a value it refuses itself
FINISHED = 35  # seen: "Job has finished"
UNKNOWN_JOB = 153  # seen
NOT_PERMITTED = 159  # seen: "Unauthorized Request"
EXITING = 168  # seen: the job's state does not allow the request
NO_COMMAND = (126, 127)  # the shell's own: not executable, not found

_REJECTED = {
    USAGE: "bad_value",
    5: "bad_value",  # seen: resource requests that exclude each other
    6: "bad_value",  # seen: nodes together with select
    32: "site_hook",  # seen: a hook refused the job, or crashed
    38: "too_many_queued",  # seen: "would exceed queue generic's per-user limit"
    NOT_PERMITTED: "not_authorized",  # seen: the queue is for others
    166: "bad_value",  # seen: "Illegal attribute or resource value"
    170: "unknown_queue",  # seen
    171: "not_authorized",  # the account's credential is not accepted
    173: "queue_disabled",  # seen: "Queue is not enabled"
    174: "not_authorized",  # no access from this host
    175: "not_authorized",  # seen: no password entry for this account at the server
    184: "bad_value",  # bad list of attributes
    187: "unknown_resource",  # seen
    188: "over_limit",  # seen: "Job violates queue and/or server resource limits"
    189: "unknown_queue",  # no default queue
    191: "never_fits",  # no queue behind a route accepts the job
    194: "bad_script",
    196: "never_fits",  # resources temporarily not available
    197: "not_authorized",  # group
    198: "too_many_queued",
    201: "bad_account",
}
"""Exit code of qsub or qalter → last part of the code ``scheduler.rejected.…``."""

_NO_CONNECTION = re.compile(
    r"cannot connect to|couldn't connect to|could not connect to|^connection refused|^unknown host|timed out$"
    r"|communication failure|illegally formed|\berr(?:no|or)=\d",
    re.IGNORECASE | re.MULTILINE,
)
"""Words of the PBS client library. Exact, because a site's own greeting may stand in the error text as well."""


def mentions_connection(result: CommandResult) -> bool:
    """Whether the error text says that the server, not the job, is the trouble."""
    return _NO_CONNECTION.search(printable(result.stderr)) is not None


def mentions_bad_job(result: CommandResult) -> bool:
    """Whether qstat refused a question because of one id: it looks at all of them before it asks any server (seen)."""
    return "illegally formed job identifier: " in printable(result.stderr)


def unavailable(result: CommandResult, why: str = "") -> SchedulerUnavailable:
    """The error for an answer that proves nothing."""
    words = printable(result.stderr) or why or f"exit status {result.exit_status}"
    code = "scheduler.command_missing" if result.exit_status in NO_COMMAND else ""
    return SchedulerUnavailable(words, code=code, params={"exit_status": result.exit_status})


def raise_rejection(result: CommandResult) -> NoReturn:
    """Turn a failed qsub or qalter into SubmitRejected where the refusal is certain, else
    SchedulerUnavailable.

    Certain means: the code is in the table. Everything else may have happened after the server took the job.
    """
    narrow = _REJECTED.get(result.exit_status)
    if narrow is None:
        raise unavailable(result)
    words = printable(result.stderr)
    if result.exit_status == USAGE:
        words = words.partition("\nusage:")[0]
        narrow = "bad_name" if "-N value" in words or "Job name" in words else narrow  # seen
    raise SubmitRejected(words, code=f"scheduler.rejected.{narrow}", params={"exit_status": result.exit_status})


def raise_for_job(result: CommandResult) -> NoReturn:
    """A failed request about one existing job: NotPermitted, or SchedulerUnavailable."""
    if result.exit_status == NOT_PERMITTED:
        raise NotPermitted(printable(result.stderr))
    raise unavailable(result)
