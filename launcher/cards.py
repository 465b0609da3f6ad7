"""Turns a session into what a person reads: the card, the timeline, why it ended. Reads records, writes nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from launcher import clusterwords, credential_state, endwarnings, endwords, noticewords, selectors, wording
from launcher.allowances import Entry
from launcher.catalog import LaunchChoices
from launcher.figures import last_round
from launcher.idle import limit_seconds
from launcher.models import InteractiveSession, NoticeKind
from launcher.more_time import MoreTime, more_time_of
from launcher.parts import apps, clusters
from launcher.schedulers.base import JobState
from launcher.ssh.errors import HostKeyChanged
from launcher.states import SessionState
from portal.accounts.models import User
from portal.clock import now

_TONES = {
    SessionState.SUBMITTING: "busy",
    SessionState.QUEUED: "quiet",
    SessionState.STARTING: "busy",
    SessionState.READY: "good",
    SessionState.STOPPING: "busy",
    SessionState.ENDED: "quiet",
}
SLOW_TO_SEND = dt.timedelta(seconds=30)
SHORT_SECONDS = 600
_BAD_ENDINGS = frozenset({"failed", "node_failed", "submit_rejected", "lost", "out_of_memory", "walltime"})


@dataclass(frozen=True, slots=True)
class VisitLine:
    """An administrator's visit to somebody's session, as its owner reads it."""

    id: int
    visitor: str
    reason: str
    began_at: dt.datetime
    until: dt.datetime  # when it ended, or will at the latest
    is_running: bool


@dataclass(frozen=True, slots=True)
class SessionCard:
    """Everything a page shows of a session, in words."""

    id: str
    title: str
    owner: str
    app_id: str
    app_name: str
    icon_url: str
    state: str
    state_label: str
    state_tone: str  # quiet, busy, good, warn or bad
    state_text: str
    can_connect: bool
    can_stop: bool
    is_live: bool
    created_at: dt.datetime
    started_at: dt.datetime | None  # its job began to run
    ended_at: dt.datetime | None
    resources: str
    environment: str
    host: str
    ends_at: dt.datetime | None
    time_left_seconds: int | None
    time_share: int | None  # percent of the time that is left
    warn_seconds: int  # less than so much left is little
    notices: tuple[noticewords.NoticeText, ...]  # what the owner was told and is still to come
    unreachable_since: dt.datetime | None
    is_shut_out: bool  # the cluster answers, but does not let the portal in with the owner's account
    is_distrusted: bool  # something answers, but does not prove to be the cluster: the portal keeps away from it
    asked_again_at: dt.datetime | None  # while the cluster does not answer
    likely_start_at: dt.datetime | None  # while it waits, where the scheduler says so
    can_never_run: bool  # the scheduler says so
    idle_rule: str  # "Stops when unused for 2 hours."; empty where there is no such rule
    unused_since: dt.datetime | None  # set once it has been announced
    idle_stop_at: dt.datetime | None  # that it will be stopped then
    can_keep: bool
    end_sentence: str
    end_words: str  # the sentence and the cure
    end_cure: str  # also of one that can never start
    details: str  # the scheduler's own words
    relaunch_url: str
    more: MoreTime
    visits: tuple[VisitLine, ...]  # of administrators, oldest first


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the timeline."""

    key: str
    label: str
    state: str  # done, now, next or failed
    at: dt.datetime | None
    seconds: float | None  # since the step before


def app_icon(app_id: str) -> str:
    """The address of an app's icon."""
    return reverse("launcher:app-icon", args=[app_id]) if app_id in apps() else static("img/logo.svg")


def app_name(app_id: str) -> str:
    """An app's name in the reader's language; its id when the app is no longer offered."""
    app = apps().get(app_id)
    return wording.translated(app.name) if app else app_id


def card_of(
    session: InteractiveSession, viewer: User | None = None, entries: Sequence[Entry] | None = None
) -> SessionCard:
    """The card of ``session`` as ``viewer`` (its owner when ``None``) sees it.

    ``entries``: what its owner is allowed, where many cards are made.
    """
    state = SessionState(session.state)
    choices = LaunchChoices.from_dict(session.choices)
    is_owner = viewer is None or viewer.pk == session.owner_id
    time_left, share = _time_left(session, choices)
    tone = "bad" if session.end_reason in _BAD_ENDINGS else _TONES[state]
    idle_stop_at = session.idle_stop_at if state is SessionState.READY else None
    is_paused = selectors.is_paused(session)
    if session.unreachable_since is not None or idle_stop_at is not None or is_paused:
        tone = "warn"
    waits = state is SessionState.QUEUED and session.stop_requested_at is None
    can_never_run = waits and clusterwords.can_never_run(session)
    if can_never_run:
        tone = "bad"
    return SessionCard(
        id=session.id,
        title=session.title or app_name(session.app),
        owner=session.username,
        app_id=session.app,
        app_name=app_name(session.app),
        icon_url=app_icon(session.app),
        state=state,
        state_label=wording.paused_label() if is_paused else wording.state_label(state),
        state_tone=tone,
        state_text=_state_text(session, is_owner=is_owner),
        can_connect=state is SessionState.READY and bool(session.upstream_host) and is_owner and not is_paused,
        can_stop=state.is_live and state is not SessionState.STOPPING and session.stop_requested_at is None,
        is_live=state.is_live,
        created_at=session.created_at,
        started_at=session.started_at,
        ended_at=session.ended_at,
        resources=resources_text(choices),
        environment=wording.environment_text(choices),
        host=session.execution_host,
        ends_at=session.walltime_ends_at,
        time_left_seconds=time_left,
        time_share=share,
        warn_seconds=_warn_seconds(session),
        notices=_notices(session, has_own_words=idle_stop_at is not None) if state.is_live and is_owner else (),
        unreachable_since=session.unreachable_since,
        is_shut_out=session.unreachable_code not in ("", HostKeyChanged.code),
        is_distrusted=session.unreachable_code == HostKeyChanged.code,
        asked_again_at=_asked_again_at(session),
        likely_start_at=_likely_start_at(session) if waits and not can_never_run else None,
        can_never_run=can_never_run,
        idle_rule=_idle_rule(session),
        unused_since=session.active_at if idle_stop_at else None,
        idle_stop_at=idle_stop_at,
        can_keep=idle_stop_at is not None and is_owner,
        end_sentence=endwords.end_sentence(session, is_owner=is_owner) if state is SessionState.ENDED else "",
        end_words=wording.joined(endwords.end_sentence(session, is_owner=is_owner), endwords.end_cure(session)),
        end_cure=_cure(session, can_never_run=can_never_run),
        details=session.end_detail or session.job_comment,
        relaunch_url=f"{reverse('launcher:launch', args=[session.app])}?again={session.id}",
        more=more_time_of(session, is_owner=is_owner, entries=entries),
        visits=_visits(session),
    )


MOST_VISITS = 5


def _visits(session: InteractiveSession) -> tuple[VisitLine, ...]:
    """The last ones."""
    moment = now()
    lines = [
        VisitLine(
            id=visit.pk,
            visitor=visit.visitor_name,
            reason=visit.reason,
            began_at=visit.began_at,
            until=visit.ended_at or visit.expires_at,
            is_running=visit.ended_at is None and visit.expires_at > moment,
        )
        for visit in session.visits.all()
    ]
    return tuple(lines[-MOST_VISITS:])


def _time_left(session: InteractiveSession, choices: LaunchChoices) -> tuple[int | None, int | None]:
    if session.walltime_ends_at is None or session.stop_requested_at is not None or not session.is_live:
        return None, None
    left = max(0, int((session.walltime_ends_at - now()).total_seconds()))
    return left, min(100, round(100 * left / max(1, session.walltime_seconds or choices.walltime_seconds)))


def _cure(session: InteractiveSession, *, can_never_run: bool) -> str:
    if can_never_run:
        return clusterwords.never_cure(session)
    return endwords.end_cure(session) if session.state == SessionState.ENDED else ""


def _likely_start_at(session: InteractiveSession) -> dt.datetime | None:
    """The scheduler's estimate, unless it has passed: then it was wrong."""
    estimate = session.estimated_start_at
    return estimate if estimate is not None and estimate > now() else None


def _asked_again_at(session: InteractiveSession) -> dt.datetime | None:
    last = last_round(session.cluster) if session.unreachable_since is not None else None
    return last.next_at if last is not None and last.next_at > now() else None


def _warn_seconds(session: InteractiveSession) -> int:
    """From when on the time left is shown as little: the owner's first warning, else ten minutes."""
    ends_at, begun_at, owner = session.walltime_ends_at, session.started_at, session.owner if session.is_live else None
    if ends_at is None or begun_at is None or owner is None:
        return SHORT_SECONDS
    minutes = endwarnings.minutes_for(owner.warn_minutes, whole=ends_at - begun_at)
    return minutes[0] * 60 if minutes else SHORT_SECONDS


def _notices(session: InteractiveSession, *, has_own_words: bool) -> tuple[noticewords.NoticeText, ...]:
    """``has_own_words``: the card itself says, with the button beside it, that the session will be stopped unused."""
    texts = noticewords.active_texts(session)
    return tuple(text for text in texts if text.kind != NoticeKind.IDLE) if has_own_words else texts


def _idle_rule(session: InteractiveSession) -> str:
    limit = limit_seconds(apps().get(session.app), clusters().get(session.cluster))
    if session.state != SessionState.READY or not limit:
        return ""
    return _("Stops when unused for %(time)s.") % {"time": wording.duration_text(max(60, limit))}


def _state_text(session: InteractiveSession, *, is_owner: bool) -> str:
    state = SessionState(session.state)
    known = _known_text(session, state, is_owner=is_owner)
    if session.unreachable_since is None:
        return known
    if not credential_state.can_act(session.cluster, session.username):
        return wording.connect_first_sentence(session)
    if session.unreachable_code:
        return wording.shut_out_sentence(session.unreachable_code) % {"state": known}
    if session.stop_requested_at is not None:
        return _("The cluster does not answer at the moment. The session is stopped as soon as it does.")
    if state is SessionState.SUBMITTING:
        return _("The cluster does not answer. The session is kept and will be sent as soon as it does.")
    return _("The cluster does not answer at the moment. Last known: %(state)s") % {"state": known}


def _known_text(session: InteractiveSession, state: SessionState, *, is_owner: bool) -> str:
    """What was heard last."""
    if session.stop_requested_at is not None and state is not SessionState.ENDED:
        return _("Stopping. This can take a minute.")
    if state is SessionState.SUBMITTING:
        if now() - session.created_at > SLOW_TO_SEND:
            return _("The session is being sent to the cluster. It takes longer than usual; you need not do anything.")
        return _("The session is being sent to the cluster.")
    if state is SessionState.QUEUED:
        return clusterwords.waiting_sentence(session)
    if selectors.is_paused(session):
        return _("The cluster has paused this session. It goes on by itself later.")
    if state is SessionState.STARTING or (state is SessionState.READY and not session.upstream_host):
        if session.job_state in (JobState.QUEUED, JobState.HELD):
            return _("The cluster has put this session back into the queue.")
        if session.upstream_trouble:
            return clusterwords.trouble_sentence(session)
        if session.server_at is not None:
            return _("Jupyter has started. Waiting for its first answer.")
        return _("A computer was found. Your environment is loading.")
    if state is SessionState.READY:
        return _("Your notebook is ready.") if is_owner else _("The notebook is ready.")
    return endwords.end_sentence(session, is_owner=is_owner)


def resources_text(choices: LaunchChoices) -> str:
    """What was asked for, in one line."""
    parts = [
        ngettext("%(count)d core", "%(count)d cores", choices.cores) % {"count": choices.cores},
        wording.memory_text(choices.memory_mib),
        wording.duration_text(choices.walltime_seconds),
    ]
    if choices.gpus:
        parts.insert(2, ngettext("%(count)d GPU", "%(count)d GPUs", choices.gpus) % {"count": choices.gpus})
    return " · ".join(parts)


def timeline_of(session: InteractiveSession) -> list[Step]:
    """The way from the form to the notebook, each step with its time."""
    ended = session.state == SessionState.ENDED
    can_never_run = session.state == SessionState.QUEUED and clusterwords.can_never_run(session)
    reached = [
        ("submitted", _("Sent to the cluster"), _("Being sent to the cluster"), session.submitted_at),
        ("node", _("A computer was assigned"), _("Waiting for a computer"), session.started_at),
        ("environment", _("Environment loaded, Jupyter started"), _("Environment is loading"), session.server_at),
        ("ready", _("Ready"), _("Waiting for Jupyter's first answer"), session.ready_at),
    ]
    if ended:
        reached = [entry for entry in reached if entry[3] is not None]
    steps = [Step("launched", _("Asked for"), "done", session.created_at, None)]
    previous, pending = session.created_at, False
    for key, label, going_on, at in reached:
        if at is not None:
            steps.append(Step(key, label, "done", at, round((at - previous).total_seconds(), 1)))
            previous = at
        else:
            if pending:
                steps.append(Step(key, label, "next", None, None))
            else:
                steps.append(Step(key, going_on, "failed" if can_never_run else "now", None, None))
            pending = True
    if session.ended_at is not None:
        failed = session.end_reason in _BAD_ENDINGS
        seconds = round((session.ended_at - previous).total_seconds(), 1)
        steps.append(Step("ended", _("Ended"), "failed" if failed else "done", session.ended_at, seconds))
    return steps
