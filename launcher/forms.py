"""The launch form, built from an app's fields and the cluster's limits. It only gathers and shows: what is allowed is
decided by ``check_choices``, which the API uses too, so the two can never disagree."""

from __future__ import annotations

import math
from typing import Any

import structlog
from django import forms
from django.utils.translation import gettext as _

from launcher import refusalwords, selectors, wording
from launcher.advice import advice_for
from launcher.catalog import App, FormField, LaunchChoices, default_choices, limits
from launcher.choices import COMPANIONS
from launcher.clusters import Cluster, QueueLimits
from launcher.entitlements import entitlement_of
from launcher.flows.launch import images_for
from launcher.rawvalues import tidy
from launcher.remember import remembered
from launcher.services import LaunchRefused
from portal.accounts.models import User
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)

IMAGES_KEEP_SECONDS = 60


class LaunchForm(forms.Form):
    """One app's form for one person. Field names are those of the raw values."""

    def __init__(self, data: Any = None, *, app: App, cluster: Cluster, user: User, again: str = "") -> None:
        self.app, self.cluster, self.user = app, cluster, user
        self.most_hours = entitlement_of(user, app, cluster).hours
        self.defaults: dict[str, object] = {
            **default_choices(app, cluster, most_hours=self.most_hours),
            **_values_of_last_time(app, user, again, most_hours=self.most_hours),
        }
        self.blames_queue = False  # something is wrong only in the queue that is chosen
        super().__init__(data, initial=self.defaults)
        for field in app.fields:
            self._add(field)
        # What was sent is waited for: then only what is known already.
        known = {name: value for name, value in self.defaults.items() if name in self.fields}
        for name, sentence in advice_for(app, cluster, user, known, may_ask=not self.is_bound).items():
            shown = self.fields.get(name)
            if isinstance(shown, _Unchecked):
                shown.advice = sentence

    def raw_values(self) -> dict[str, object]:
        """What was sent, for ``check_choices``. A field left empty takes its default, except for texts."""
        values: dict[str, object] = {}
        for name in self.fields:
            sent = self.data.get(name)
            if sent is not None and (sent.strip() or name in ("title", "folder", "image", "image_path")):
                values[name] = sent
        return values

    def refuse(self, refused: LaunchRefused) -> None:
        """Show why a launch was refused, each sentence at its field."""
        self._errors = None
        self.blames_queue = any("queue" in params for _field, _code, params in refused.fields)
        self.full_clean()
        self.add_error(None, refusalwords.refusal_sentence(refused.code, refused.params))
        for name, code, params in refused.fields:
            sentence = refusalwords.mistake_sentence(code, params)
            name = self._where_it_was_typed(name)
            self.add_error(name if name in self.fields else None, sentence)

    def _where_it_was_typed(self, name: str) -> str:
        """The field of the path, where somebody chose to type one instead of choosing."""
        return COMPANIONS[name] if name in COMPANIONS and self.data.get(name) == "path" else name

    def basic(self) -> list[forms.BoundField]:
        """Fields that everybody sees."""
        return [bound for bound in self if not getattr(bound.field, "advanced", False)]

    def advanced(self) -> list[forms.BoundField]:
        """Fields that are folded away."""
        return [bound for bound in self if getattr(bound.field, "advanced", False)]

    def _add(self, entry: FormField) -> None:
        """Add the form field (for some kinds two) of ``entry``."""
        bounds = limits(self.app, self.cluster.queues[0], most_hours=self.most_hours)
        label, hint = wording.translated(entry.label), wording.translated(entry.help)
        extra: dict[str, forms.Field] = {}
        match entry.kind:
            case "environment":
                field: forms.Field = _choice(self._environments())
                extra["environment_path"] = _text(_("Path of the environment"), placeholder="~/envs/my-project")
            case "image":
                images = self._images()
                last = self.defaults.get("image")
                if last and last not in images:  # typed then, and typed again now: the list would fall to its first
                    self.defaults |= {"image": "path", "image_path": last}
                field = _choice([*((path, path.rsplit("/", 1)[-1]) for path in images), ("path", _("Type a path…"))])
                extra["image_path"] = _text(_("Path of the image"), placeholder="/home/…/my-image.sif")
            case "queue":
                field = _choice(
                    [
                        (queue.name, _queue_label(queue.label or queue.name, self._most_hours_in(queue)))
                        for queue in self.cluster.queues
                    ]
                )
            case "cores":
                field = _number(bounds.min_cores, bounds.max_cores, 1)
            case "gpus":
                if bounds.max_gpus == 0 and all(queue.max_gpus == 0 for queue in self.cluster.queues):
                    return
                field = _number(bounds.min_gpus, max(queue.max_gpus for queue in self.cluster.queues), 1)
                hint = wording.joined(_where_gpus_are(self.cluster.queues), hint)
            case "hours":
                field = _number(bounds.min_hours, max(map(self._most_hours_in, self.cluster.queues)), "any")
            case "memory":
                field = _text("", placeholder="4 GB")
                hint = hint or _("For example 4 GB; at most %(max)s.") % {
                    "max": wording.memory_text(bounds.max_memory_mib)
                }
            case _:
                field = _text("", maxlength=80 if entry.kind == "title" else 1024)
        field.label, field.help_text, field.required = label, hint, False
        for name, one in {entry.name: field, **extra}.items():
            one.advanced = entry.advanced  # type: ignore[attr-defined]  # read by the template
            self.fields[name] = one

    def _most_hours_in(self, queue: QueueLimits) -> float:
        return limits(self.app, queue, most_hours=self.most_hours).max_hours

    def _environments(self) -> list[tuple[str, str]]:
        modules = [(f"module:{name}", name) for name in self.cluster.modules]
        return [("default", _("Site default")), *modules, ("path", _("My own environment (type its path)"))]

    def _images(self) -> tuple[str, ...]:
        """Images on the cluster; none when it does not answer, a path can still be typed."""
        key = f"images:{self.cluster.id}:{self.user.username}"
        try:
            return remembered(key, IMAGES_KEEP_SECONDS, lambda: images_for(self.cluster, self.user.username))
        except FootbridgeError as error:
            log.info("images_not_listed", cluster=self.cluster.id, error=error.code)
            return ()


def _values_of_last_time(app: App, user: User, again: str, *, most_hours: float | None) -> dict[str, object]:
    """Raw values of an earlier session: the one named, else the last of this app. Its hours may be too many by now."""
    sessions = selectors.sessions_of(user).filter(app=app.id)
    named = sessions.filter(pk=again).first() if again.isalnum() else None  # PostgreSQL takes no NUL even to compare
    session = named or sessions.first()
    if session is None:
        return {}
    try:
        choices = LaunchChoices.from_dict(session.choices)
    except ValueError:
        return {}
    environment = {"default": "default", "path": "path"}.get(
        choices.environment_kind, f"module:{choices.environment_value}"
    )
    return {
        "cores": choices.cores,
        "memory": wording.memory_text(choices.memory_mib),
        "hours": f"{min(choices.walltime_seconds / 3600, math.inf if most_hours is None else most_hours):.6g}",
        "gpus": choices.gpus,
        "queue": choices.queue,
        "environment": environment,
        "environment_path": choices.environment_value if choices.environment_kind == "path" else "",
        "image": choices.image,
        "folder": choices.folder,
        "title": choices.title,
    }


def _where_gpus_are(queues: tuple[QueueLimits, ...]) -> str:
    """Which queues have GPUs, where not all do."""
    names = [queue.label or queue.name for queue in queues if queue.max_gpus]
    if len(names) == len(queues):
        return ""
    return _("Queues that have some: %(queues)s.") % {"queues": ", ".join(names)}


def _queue_label(label: str, max_hours: float) -> str:
    return _("%(queue)s (at most %(time)s)") % {"queue": label, "time": wording.hours_text(tidy(max_hours))}


def _choice(choices: list[tuple[str, str]]) -> forms.Field:
    return _Unchecked(widget=forms.Select(choices=choices))


def _text(label: str, *, placeholder: str = "", maxlength: int = 1024) -> forms.Field:
    attributes = {"maxlength": str(maxlength), "autocomplete": "off"}
    if placeholder:
        attributes["placeholder"] = placeholder
    return _Unchecked(label=label, required=False, widget=forms.TextInput(attrs=attributes))


def _number(low: float, high: float, step: int | str) -> forms.Field:
    attributes = {"min": f"{low:g}", "max": f"{high:g}", "step": str(step), "inputmode": "decimal"}
    return _Unchecked(widget=forms.NumberInput(attrs=attributes))


class _Unchecked(forms.Field):
    """Shows a value and its mistakes; ``check_choices`` judges it."""

    advice = ""  # what is known now about a good value; no promise
