"""What the API takes and sends, as documented in its OpenAPI description, and how records become it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.conf import settings
from django.urls import reverse
from ninja import Schema
from pydantic import ConfigDict, Field

from launcher import endwords, wording
from launcher.catalog import App, FormField, LaunchChoices, default_choices, limits
from launcher.clusters import Cluster, QueueLimits
from launcher.models import InteractiveSession
from launcher.states import SessionState


class FieldProblem(Schema):
    """What is wrong with one value."""

    field: str
    code: str
    message: str


class Problem(Schema):
    """Why a request was refused."""

    code: str = Field(description="Stable, for programs.")
    message: str = Field(description="For people, in the language that Accept-Language asks for.")
    fields: list[FieldProblem] | None = None


class AppOut(Schema):
    """An app that can be launched."""

    id: str
    name: str
    description: str


class QueueOut(Schema):
    """A queue, with what may be asked for in it by this app."""

    name: str
    label: str
    min_cores: int
    max_cores: int
    min_memory_mib: int
    max_memory_mib: int
    min_hours: float
    max_hours: float
    min_gpus: int
    max_gpus: int


class FieldOut(Schema):
    """A field of the launch form. ``choices``: what the site offers, where it offers a list."""

    name: str
    label: str
    help: str
    default: str | int | float
    advanced: bool
    choices: list[str] | None = None


class AppDetail(AppOut):
    """An app with its launch form."""

    cluster: str
    fields: list[FieldOut]
    queues: list[QueueOut]


class AppList(Schema):
    """Apps, in the catalogue's order."""

    apps: list[AppOut]


class LaunchIn(Schema):
    """A launch: the app's id, and values by the names of the form's fields. What is left out takes its
    default.
    """

    model_config = ConfigDict(extra="forbid")

    app: str = Field(max_length=64, examples=["jupyter"])
    values: dict[str, Any] = Field(
        default_factory=dict, examples=[{"cores": 2, "memory": "4 GB", "hours": 1.5, "title": "my analysis"}]
    )


class ExtendIn(Schema):
    """What a program may say when it asks for more time."""

    model_config = ConfigDict(extra="forbid")

    walltime_seconds: int | None = Field(
        default=None,
        ge=1,
        description="The walltime in all that you saw. When the session has more by now, nothing is done.",
    )


class EndOut(Schema):
    """Why a session ended. ``reason`` is for programs; ``message`` and ``cure`` are for people."""

    reason: str
    message: str
    cure: str
    details: str = Field(description="The scheduler's own words, where it said any.")
    exit_status: int | None


class SessionOut(Schema):
    """A session."""

    id: str
    owner: str
    app: str
    title: str
    cluster: str
    state: str = Field(description=", ".join(SessionState))
    message: str = Field(description="The state, for people.")
    url: str = Field(description="The session's page, for a person to open.")
    cores: int
    memory_mib: int
    walltime_seconds: int
    gpus: int
    queue: str
    job_id: str
    execution_host: str
    created_at: dt.datetime
    submitted_at: dt.datetime | None
    started_at: dt.datetime | None
    ready_at: dt.datetime | None
    ended_at: dt.datetime | None
    walltime_ends_at: dt.datetime | None
    walltime_granted_seconds: int | None = Field(description="In all, as the cluster says.")
    extensions: int = Field(description="How often it was extended.")
    extending_to_seconds: int | None = Field(description="Asked for in all; the cluster has not answered yet.")
    continues: str | None = Field(description="The id of the session whose work this one goes on with.")
    unreachable_since: dt.datetime | None = Field(
        description="Since when the cluster does not answer; what is said here is what was known last."
    )
    end: EndOut | None


class SessionList(Schema):
    """Sessions, newest first. ``next``: the ``after`` that brings the rest; null at the end."""

    sessions: list[SessionOut]
    next: str | None


class LimitProblem(Problem):
    """A limit of the person is reached; ``session`` is one that counts against it."""

    session: SessionOut | None


def app_out(app: App) -> AppOut:
    """The app, in the reader's language."""
    return AppOut(id=app.id, name=wording.translated(app.name), description=wording.translated(app.description))


def app_detail(app: App, cluster: Cluster, *, most_hours: float | None) -> AppDetail:
    """The app with its form and the limits on ``cluster`` for somebody who may have ``most_hours``."""
    defaults = default_choices(app, cluster, most_hours=most_hours)
    return AppDetail(
        **app_out(app).model_dump(),
        cluster=cluster.id,
        fields=[_field_out(field, cluster, defaults) for field in app.fields],
        queues=[_queue_out(app, queue, most_hours) for queue in cluster.queues],
    )


def _field_out(field: FormField, cluster: Cluster, defaults: dict[str, object]) -> FieldOut:
    offered = {
        "environment": ["default", *(f"module:{name}" for name in cluster.modules)],
        "queue": [queue.name for queue in cluster.queues],
    }
    default = defaults.get(field.name, field.default)
    return FieldOut(
        name=field.name,
        label=wording.translated(field.label),
        help=wording.translated(field.help),
        default=default if isinstance(default, str | int | float) else "",
        advanced=field.advanced,
        choices=offered.get(field.kind),
    )


def _queue_out(app: App, queue: QueueLimits, most_hours: float | None) -> QueueOut:
    bounds = limits(app, queue, most_hours=most_hours)
    return QueueOut(
        name=queue.name,
        label=queue.label or queue.name,
        min_cores=bounds.min_cores,
        max_cores=bounds.max_cores,
        min_memory_mib=bounds.min_memory_mib,
        max_memory_mib=bounds.max_memory_mib,
        min_hours=bounds.min_hours,
        max_hours=bounds.max_hours,
        min_gpus=bounds.min_gpus,
        max_gpus=bounds.max_gpus,
    )


def session_out(session: InteractiveSession) -> SessionOut:
    """The session as a program sees it: no secret, no folder, no log."""
    choices = LaunchChoices.from_dict(session.choices)
    return SessionOut(
        id=session.id,
        owner=session.username,
        app=session.app,
        title=session.title,
        cluster=session.cluster,
        state=session.state,
        message=wording.state_label(SessionState(session.state)),
        url=settings.CONF.portal_url + reverse("launcher:session", args=[session.id]),
        cores=choices.cores,
        memory_mib=choices.memory_mib,
        walltime_seconds=choices.walltime_seconds,
        gpus=choices.gpus,
        queue=choices.queue,
        job_id=session.job_id,
        execution_host=session.execution_host,
        created_at=session.created_at,
        submitted_at=session.submitted_at,
        started_at=session.started_at,
        ready_at=session.ready_at,
        ended_at=session.ended_at,
        walltime_ends_at=session.walltime_ends_at,
        walltime_granted_seconds=session.walltime_seconds,
        extensions=session.extensions,
        extending_to_seconds=session.extending_to_seconds,
        continues=session.continues_id,
        unreachable_since=session.unreachable_since,
        end=_end_out(session) if session.state == SessionState.ENDED else None,
    )


def _end_out(session: InteractiveSession) -> EndOut:
    return EndOut(
        reason=session.end_reason,
        message=endwords.end_sentence(session),
        cure=endwords.end_cure(session),
        details=session.end_detail,
        exit_status=session.exit_status,
    )
