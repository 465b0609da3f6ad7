"""The sentences about a cluster: why a session waits there, whether it answers, what its queues let through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from launcher.fits import Room
from launcher.models import InteractiveSession
from launcher.schedulers.base import JobState, Queue
from launcher.schedulers.comments import explain, is_hopeless
from launcher.schedulers.values import size_mib
from launcher.wording import Blank, duration_text, memory_text, rounded_memory_text


def scheduler_label(name: str) -> str:
    """A scheduler by its own name."""
    return {"pbs": "PBS", "torque": "TORQUE", "slurm": "Slurm"}.get(name, name)


def cluster_health_text(health: str, *, facts_failed: bool) -> str:
    """Whether a cluster answers, in a word or two."""
    if health == "answering":
        return _("Answering")
    if health == "silent" or facts_failed:
        return _("Not answering")
    return _("Not asked lately")


def queue_state(queue: Queue) -> str:
    """What becomes of a job that is sent to a queue now."""
    if not queue.accepts_jobs:
        return _("Takes no jobs")
    return _("Open") if queue.starts_jobs else _("Takes jobs, starts none")


def queue_limits(queue: Queue) -> str:
    """What a queue lets through, in one line; empty where the scheduler states no limit."""
    parts = []
    if queue.max_cores:
        parts.append(ngettext("%(count)d core", "%(count)d cores", queue.max_cores) % {"count": queue.max_cores})
    if queue.max_memory_mib:
        parts.append(memory_text(queue.max_memory_mib))
    if queue.max_gpus is not None:
        parts.append(ngettext("%(count)d GPU", "%(count)d GPUs", queue.max_gpus) % {"count": queue.max_gpus})
    if queue.max_walltime_seconds:
        parts.append(duration_text(queue.max_walltime_seconds))
    return " · ".join(parts)


def can_never_run(session: InteractiveSession) -> bool:
    """Whether the scheduler says that a waiting session will never start."""
    return session.job_state != JobState.HELD and is_hopeless(explain(session.job_comment))


def never_cure(session: InteractiveSession) -> str:
    """What to do about a session that can never start."""
    if explain(session.job_comment).code == "waiting.never_allowed":
        return _("Stop it and choose another queue, or ask the administrators.")
    return _("Stop it and launch again with less.")


def trouble_sentence(session: InteractiveSession) -> str:
    """Why the portal does not get to the computer on which a session's server waits."""
    words = {
        "ssh.node_refused": _(
            "Jupyter has started on %(host)s, but that computer does not let the portal in with your account. "
            "The administrators must allow it."
        ),
        "ssh.node_key_unknown": _(
            "Jupyter has started on %(host)s, but that computer is not known to the portal, so it does not connect. "
            "The administrators have been told."
        ),
    }
    found = words.get(session.upstream_trouble, _("Jupyter has started on %(host)s, but the portal cannot get there."))
    return found % {"host": session.upstream_host}


def waiting_sentence(session: InteractiveSession) -> str:
    """Why a session waits in the queue."""
    if session.job_state == JobState.HELD:
        return _("The cluster holds this session back. Its administrators can say why.")
    reason = explain(session.job_comment)
    return {
        "waiting.cores_busy": _("Waiting for free cores. It starts by itself as soon as they are there."),
        "waiting.memory_busy": _("Waiting for free memory. It starts by itself as soon as it is there."),
        "waiting.gpus_busy": _("Waiting for a free GPU. It starts by itself as soon as one is there."),
        "waiting.nodes_busy": _("All suitable computers are busy. It starts by itself as soon as one is free."),
        "waiting.user_limit": _(
            "You already use as much of the cluster as you may at a time. It starts by itself when some of it is free."
        ),
        "waiting.queue_stopped": _("The queue is stopped at the moment. The administrators will open it again."),
        "waiting.never": _never_sentence(reason.params),
        "waiting.never_time": _("This can never start: you asked for more hours than this queue allows."),
        "waiting.never_limit": _("This can never start: you asked for more than one session may have."),
        "waiting.never_allowed": _("This can never start: your account may not use this queue."),
        "waiting.priority": _("Others are before you in the queue. It starts by itself when it is its turn."),
        "waiting.project_limit": _(
            "Your group already uses as much of the cluster as it may at a time."
            " It starts by itself when some of it is free."
        ),
        "waiting.time_used_up": _(
            "The computing time of your group or account is used up. Ask the administrators for more."
        ),
        "waiting.queue_limit": _("This queue runs as many jobs as it may. It starts by itself when one has ended."),
        "waiting.resource_busy": _("What you asked for is in use. It starts by itself as soon as it is free."),
        "waiting.licenses_busy": _("All licences are in use. It starts by itself as soon as one is free."),
        "waiting.nodes_down": _("Computers that could run it are switched off or broken at the moment."),
        "waiting.maintenance": _("The cluster is kept free for maintenance. It starts by itself afterwards."),
        "waiting.dependency": _("It waits for another job to end."),
        "waiting.until": _("It waits for the time at which it may start."),
        "waiting.held": _("The cluster holds this session back. Its administrators can say why."),
        "waiting.starting": _("The cluster is about to start it."),
    }.get(reason.code, _("Waiting in the queue. It starts by itself."))


def _never_sentence(params: Mapping[str, object]) -> str:
    values = Blank(params)
    if params.get("requested") and params.get("total"):
        if params.get("resource") == "ncpus":
            return (
                _("This can never start: you asked for %(requested)s cores, and there are at most %(total)s.") % values
            )
        if params.get("resource") in ("mem", "vmem"):
            values["requested"], values["total"] = (
                memory_text(size_mib(str(params[name])) or 0) for name in ("requested", "total")
            )
            return _("This can never start: you asked for %(requested)s, and there is at most %(total)s.") % values
        if params.get("resource") == "ngpus":
            return (
                _("This can never start: you asked for %(requested)s GPUs, and there are at most %(total)s.") % values
            )
    return _("This can never start: no computer of this queue has what you asked for.")


def room_advice(room: Room) -> str:
    """What is free now, as advice and no promise."""
    free = ngettext("%(count)d core is free now", "%(count)d cores are free now", room.cores_free) % {
        "count": room.cores_free
    }
    if room.fits:
        return _("%(free)s: likely to start at once.") % {"free": free}
    return _("Not enough is free at the moment: it may have to wait.")


def memory_advice(peaks: Sequence[int]) -> str:
    """What the last runs used at most; empty without any."""
    if not peaks:
        return ""
    values = {"count": len(peaks), "amount": rounded_memory_text(max(peaks))}
    return (
        ngettext(
            "Your last %(count)d run peaked at %(amount)s.",
            "Your last %(count)d runs peaked at %(amount)s.",
            len(peaks),
        )
        % values
    )
