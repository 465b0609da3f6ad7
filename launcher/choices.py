"""The values a launch consists of, checked once for the form and the API alike. Pure.

Raw values are whatever a browser or a program sent. Every mistake becomes a field, a code and parameters;
the sentence that people read is made elsewhere, in their language. What passes is a ``LaunchChoices`` that
can be trusted: numbers inside the limits of app and queue, texts without control characters, names that the
clusters file knows.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from launcher.appfile import App
from launcher.clusters import Cluster, QueueLimits
from launcher.rawvalues import (
    MAX_PATH,
    Limits,
    Wrong,
    cores_of,
    environment_path,
    folder_of,
    gpus_of,
    memory_of,
    text_of,
    tidy,
    walltime_of,
)
from portal.errors import FootbridgeError

MAX_TITLE = 80
SMALLEST = {"cores": 1.0, "memory": 256.0, "hours": 0.05, "gpus": 0.0}
"""Least values where the app names none. Memory in mebibytes: Jupyter does not start with less."""

COMPANIONS = {"environment": "environment_path", "image": "image_path"}
"""A second raw key of a field: the typed path beside a list. Counts when the list says ``path``, or
nothing."""


EnvironmentKind = Literal["default", "module", "path"]
T = TypeVar("T")

_SITE_DEFAULT: tuple[EnvironmentKind, str] = ("default", "")
_ANY_QUEUE = QueueLimits.model_validate(
    {"name": "any", "max_cores": 100_000, "max_memory": "100000tb", "max_hours": 24 * 366, "max_gpus": 1024}
)
"""Stands in for a queue that does not exist, so that one wrong name does not make all other values wrong."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with one field. ``field`` is the raw key; ``code`` and ``params`` make the sentence."""

    field: str
    code: str
    params: Mapping[str, object] = dataclasses.field(default_factory=dict)


class ChoicesRefused(FootbridgeError):
    """Some values cannot be granted; ``mistakes`` holds one entry for each field that is wrong."""

    code = "launch.invalid"

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__(", ".join(f"{mistake.field}: {mistake.code}" for mistake in mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class LaunchChoices:
    """What a user asked for, checked."""

    cores: int
    memory_mib: int
    walltime_seconds: int
    gpus: int = 0
    queue: str = ""
    environment_kind: EnvironmentKind = "default"
    environment_value: str = ""  # a module's name, or a path: absolute or beginning with ~/
    image: str = ""  # absolute path
    folder: str = ""  # absolute, or relative to the home folder; empty: the home folder
    title: str = ""

    def as_dict(self) -> dict[str, object]:
        """For a JSON column."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> LaunchChoices:
        """What ``as_dict`` gave. Keys of another release are left out. Raises ValueError on values of a
        wrong type."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        kept = {key: value for key, value in data.items() if key in known}
        try:
            # as JSON text: from a Python value, strict wants the object itself
            return _ADAPTER.validate_json(json.dumps(kept), strict=True)
        except ValidationError as error:
            raise ValueError(f"no launch choices: {error.error_count()} values are wrong") from error


_ADAPTER = TypeAdapter(LaunchChoices)


def limits(app: App, queue: QueueLimits, *, most_hours: float | None = None) -> Limits:
    """The limits of ``app`` in ``queue``, for the form to show and ``check_choices`` to enforce.

    ``most_hours``: what the person may have; ``None``: no less than the queue and the app allow.
    """

    def least(kind: str) -> float:
        entry = app.field(kind)
        return SMALLEST[kind] if entry is None or entry.min is None else entry.min

    def most(kind: str, of_queue: float) -> float:
        entry = app.field(kind)
        return of_queue if entry is None or entry.max is None else min(entry.max, of_queue)

    return Limits(
        min_cores=max(1, math.ceil(least("cores"))),
        max_cores=math.floor(most("cores", queue.max_cores)),
        min_memory_mib=max(1, math.ceil(least("memory"))),
        max_memory_mib=math.floor(most("memory", queue.max_memory_mib)),
        min_hours=least("hours"),
        max_hours=min(most("hours", queue.max_hours), math.inf if most_hours is None else most_hours),
        min_gpus=math.ceil(least("gpus")),
        max_gpus=math.floor(most("gpus", queue.max_gpus)) if app.field("gpus") else 0,
    )


def default_choices(app: App, cluster: Cluster, *, most_hours: float | None = None) -> dict[str, object]:
    """Raw values to begin a form with: the app's defaults, lowered to what the cluster's first queue
    allows, and to the hours that the person may have."""
    queue = cluster.queues[0]
    bounds = limits(app, queue, most_hours=most_hours)
    values: dict[str, object] = {}
    for entry in app.fields:
        values[entry.kind] = entry.default
    values["cores"] = min(int(_default(app, "cores")), bounds.max_cores)
    values["hours"] = tidy(min(_default(app, "hours"), bounds.max_hours))
    if _default(app, "memory") > bounds.max_memory_mib:
        values["memory"] = f"{bounds.max_memory_mib} MiB"
    if "gpus" in values:
        values["gpus"] = min(int(_default(app, "gpus")), bounds.max_gpus)
    if "queue" in values and cluster.queue(str(values["queue"])) is None:
        values["queue"] = queue.name
    if "environment" in values and not _is_offered(str(values["environment"]), cluster):
        values["environment"] = "default"
    return values


def check_choices(
    app: App, cluster: Cluster, raw: Mapping[str, object], *, most_hours: float | None = None
) -> LaunchChoices:
    """Checked values for launching ``app`` on ``cluster``. A key that is absent (or None) takes its default.

    ``environment`` is ``default``, ``module:<name>``, ``path:<path>``, or ``path`` with the path in
    ``environment_path``; a plain path or the plain name of an offered module will do. ``image`` is an
    absolute path, or comes from ``image_path``. ``memory`` is text such as ``4 GB``; a plain number means
    gibibytes. ``most_hours``: what the person may have, beside what queue and app allow. Raises
    ChoicesRefused, and nothing else, whatever ``raw`` holds.
    """
    if not isinstance(raw, Mapping):
        raise ChoicesRefused((Mistake("", "choices.not_an_object"),))
    return _Check(app, cluster, raw, most_hours).run()


class _Check:
    """One run of ``check_choices``: gathers the mistakes of all fields."""

    def __init__(self, app: App, cluster: Cluster, raw: Mapping[str, object], most_hours: float | None) -> None:
        self.app, self.cluster, self.most_hours = app, cluster, most_hours
        self.raw = {key: value for key, value in raw.items() if value is not None}
        self.defaults = default_choices(app, cluster, most_hours=most_hours)
        self.mistakes: list[Mistake] = []

    def run(self) -> LaunchChoices:
        kinds: set[str] = {entry.kind for entry in self.app.fields}
        allowed = kinds | {companion for kind, companion in COMPANIONS.items() if kind in kinds}
        for key in self.raw:
            if key not in allowed:
                self.mistakes.append(Mistake(str(key)[:64], "choices.unknown_field"))
        queue = self._value("queue", self._queue, _ANY_QUEUE)
        bounds = limits(self.app, queue, most_hours=self.most_hours)
        environment = self._value("environment", self._environment, _SITE_DEFAULT)
        choices = LaunchChoices(
            cores=self._value("cores", lambda raw: cores_of(raw, bounds), 1),
            memory_mib=self._value("memory", lambda raw: memory_of(raw, bounds), 1),
            walltime_seconds=self._value("hours", lambda raw: walltime_of(raw, bounds, queue, self.most_hours), 1),
            gpus=self._value("gpus", lambda raw: gpus_of(raw, bounds, queue), 0),
            queue=queue.name,
            environment_kind=environment[0],
            environment_value=environment[1],
            image=self._value("image", self._image, ""),
            folder=self._value("folder", folder_of, ""),
            title=self._value("title", lambda raw: text_of("title", raw, MAX_TITLE), ""),
        )
        if self.mistakes:
            raise ChoicesRefused(tuple(self.mistakes))
        return choices

    def _value(self, kind: str, check: Callable[[object], T], otherwise: T) -> T:
        """The checked value of a field; ``otherwise`` after a mistake, which is noted."""
        if kind == "queue" and self.app.field(kind) is None:
            return check("")
        if self.app.field(kind) is None:
            return otherwise
        try:
            return check(self.raw[kind] if kind in self.raw else self.defaults[kind])
        except Wrong as wrong:
            self.mistakes.append(Mistake(kind, f"{kind}.{wrong.code}", wrong.params))
            return otherwise

    def _queue(self, raw: object) -> QueueLimits:
        name = text_of("queue", raw, 64)
        queue = self.cluster.queue(name) if name else self.cluster.queues[0]
        if queue is None:
            raise Wrong("unknown")
        return queue

    def _environment(self, raw: object) -> tuple[EnvironmentKind, str]:
        text = text_of("environment", raw, MAX_PATH + len("module:"))
        word, _, rest = text.partition(":")
        if text == "path":
            path = self._companion("environment")
            if not path:
                raise Wrong("path_required")
            return "path", environment_path(path)
        if word == "path" or text.startswith(("/", "~")):
            return "path", environment_path(rest if word == "path" else text)
        name = rest if word == "module" else text
        if word == "module" or name in self.cluster.modules:
            if name not in self.cluster.modules:
                raise Wrong("unknown_module", value=name[:80])
            return "module", name
        if text in ("", "default"):
            path = self._companion("environment") if text == "" else ""
            return ("path", environment_path(path)) if path else _SITE_DEFAULT
        raise Wrong("unknown_module", value=text[:80])

    def _image(self, raw: object) -> str:
        text = text_of("image", raw, MAX_PATH)
        path = self._companion("image") if text in ("", "path") else text
        if not path:
            raise Wrong("required")
        if not path.startswith("/"):
            raise Wrong("not_absolute")
        return path

    def _companion(self, kind: str) -> str:
        raw = self.raw.get(COMPANIONS[kind])
        return "" if raw is None else text_of(kind, raw, MAX_PATH)


def _default(app: App, kind: str) -> float:
    entry = app.field(kind)
    return 0.0 if entry is None else entry.default_number


def _is_offered(environment: str, cluster: Cluster) -> bool:
    """Whether a default environment exists on this cluster."""
    word, _, name = environment.partition(":")
    return word != "module" or name in cluster.modules
