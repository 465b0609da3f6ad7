"""Small pieces that every page uses: icons, moments, durations and form fields. No queries, no decisions."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from django import forms, template
from django.forms.boundfield import BoundField
from django.templatetags.static import static
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from launcher.noticewords import NoticeText
from launcher.wording import joined, rounded_memory_text

register = template.Library()

_SPRITE = "vendor/bootstrap-icons/sprite.svg"
_STATE_ICONS = {
    "submitting": "send",
    "queued": "hourglass-split",
    "starting": "arrow-repeat",
    "ready": "check-circle-fill",
    "stopping": "stop-circle",
}
_TONE_ICONS = {"warn": "exclamation-triangle-fill", "bad": "x-octagon-fill"}
_GROUPS = {
    "environment": ("environment", "module", "image", "kernel"),
    "resources": ("cores", "memory", "hours", "walltime", "gpus", "queue"),
}
"""Which group a field of a launch form belongs to, by how its name begins; all others are about the session itself."""


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """A decorative icon; the words beside it carry the meaning."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        extra,
        static(_SPRITE),
        name,
    )


@register.simple_tag
def state_icon(state: str, tone: str) -> SafeString:
    """The icon of a session's state; trouble goes before the state."""
    name = _TONE_ICONS.get(tone) or _STATE_ICONS.get(state, "dash-circle")
    return icon(name, "icon-turning" if name == "arrow-repeat" else "")


@register.simple_tag
def moment(value: dt.datetime | None, style: str = "moment") -> SafeString | str:
    """A moment in the reader's zone. ``style``: ``moment`` (day and time) or ``precise`` (with seconds).

    Without a chosen zone the server writes UTC and says so; ``times.js`` then turns it into the browser's zone.
    """
    if value is None:
        return ""
    local = timezone.localtime(value)
    text = date_format(local, "DATETIME_FORMAT" if style == "moment" else "H:i:s")
    if timezone.get_current_timezone_name() == "UTC":
        text += " UTC"
    return format_html('<time datetime="{}" data-moment="{}">{}</time>', value.isoformat(), style, text)


@register.simple_tag
def notice_words(notice: NoticeText) -> SafeString:
    """A notice's sentence, with its moment in the reader's zone."""
    return format_html("{}{}{}", notice.before, moment(notice.at), notice.after)


@register.simple_block_tag
def grid(content: SafeString, *name: object, margin: str = "") -> SafeString:
    """A table. On a narrow page it is moved sideways, by keyboard too, for which it has a ``name``, in parts.

    ``margin``: a class of Bootstrap's for the space around it.
    """
    return format_html(
        '<div class="table-frame{}" tabindex="0" role="region" aria-label="{}"><table class="grid">{}</table></div>',
        f" {margin}" if margin else "",
        ", ".join(map(str, name)),
        content,
    )


@register.simple_tag
def columns(*names: object, hidden: object = "") -> SafeString:
    """The head of a table. ``hidden``: the name of a last column that only screen readers are told."""
    cells = format_html_join("", '<th scope="col">{}</th>', ((name,) for name in names))
    if hidden:
        cells += format_html('<th scope="col"><span class="visually-hidden">{}</span></th>', hidden)
    return format_html("<thead><tr>{}</tr></thead>", cells)


@register.filter
def duration(seconds: float | None) -> str:
    """``1 h 42 min``, ``8 min`` or ``3.2 s``; empty for ``None``."""
    if seconds is None:
        return ""
    if seconds < 60:
        whole = seconds >= 10 or seconds == int(seconds)
        return _("%(seconds)s s") % {"seconds": f"{seconds:.0f}" if whole else f"{seconds:.1f}"}
    hours, minutes = divmod(int(seconds) // 60, 60)
    if hours:
        return _("%(hours)d h %(minutes)d min") % {"hours": hours, "minutes": minutes}
    return ngettext("%(count)d min", "%(count)d min", minutes) % {"count": minutes}


@register.filter
def memory(mib: int) -> str:
    """``15.7 GB`` or ``512 MB`` from MiB, rounded for reading; a dash for none."""
    return rounded_memory_text(mib) if mib else "–"


@register.filter
def between(later: dt.datetime | None, earlier: dt.datetime | None) -> float | None:
    """Seconds from ``earlier`` to ``later``; ``None`` when one is missing."""
    return None if later is None or earlier is None else max(0.0, (later - earlier).total_seconds())


@register.inclusion_tag("includes/field.html", name="field")
def show_field(bound: BoundField) -> dict[str, object]:
    """A form field with its label, help, errors and the classes of the theme.

    A field ``<name>_path`` beside a choice ``<name>`` is shown only while that choice is ``path``: it asks for what
    the list does not hold. Without JavaScript both are there.
    """
    widget = bound.field.widget
    is_check = isinstance(widget, forms.CheckboxInput)
    is_many = isinstance(widget, forms.RadioSelect | forms.CheckboxSelectMultiple)
    name = "form-check-input" if is_check else "form-select" if isinstance(widget, forms.Select) else "form-control"
    classes = " ".join(
        part for part in (str(widget.attrs.get("class", "")), name, "is-invalid" if bound.errors else "") if part
    )
    bound.help_text = joined(_limits(widget), str(bound.help_text))
    choice = bound.name.removesuffix("_path")
    is_path_of = choice if choice != bound.name and choice in bound.form.fields else ""
    return {
        "field": bound,
        "control": bound if is_many else bound.as_widget(attrs={"class": classes}),
        "advice": getattr(bound.field, "advice", ""),
        "is_check": is_check,
        "is_many": is_many,
        "shown_when": bound.form.add_prefix(is_path_of) if is_path_of else "",
    }


def _limits(widget: forms.Widget) -> str:
    """What a number may be, from the bounds that the browser gets; empty for other fields."""
    low, high = widget.attrs.get("min"), widget.attrs.get("max")
    if not isinstance(widget, forms.NumberInput) or low is None or high is None:
        return ""
    if 0 < float(low) < 1:  # "from 0.05 hours" helps nobody
        return _("At most %(high)s.") % {"high": high}
    return _("From %(low)s to %(high)s.") % {"low": low, "high": high}


@dataclass(slots=True)
class FieldGroup:
    """Fields that belong together under one legend."""

    key: str
    legend: str
    fields: list[BoundField] = field(default_factory=list)

    @property
    def has_errors(self) -> bool:
        """Whether something in here needs another look."""
        return any(bound.errors for bound in self.fields)


@register.simple_tag
def field_groups(form: forms.BaseForm) -> list[FieldGroup]:
    """The form's visible fields by group, the advanced ones last; empty groups are left out.

    A field is advanced when its field object has a true ``advanced``.
    """
    groups = [
        FieldGroup("environment", _("Environment")),
        FieldGroup("resources", _("Resources")),
        FieldGroup("session", _("Name and folder")),
        FieldGroup("advanced", _("More options")),
    ]
    by_key = {group.key: group for group in groups}
    for bound in form.visible_fields():
        by_key[_group_of(bound)].fields.append(bound)
    return [group for group in groups if group.fields]


def _group_of(bound: BoundField) -> str:
    if getattr(bound.field, "advanced", False):
        return "advanced"
    for key, beginnings in _GROUPS.items():
        if bound.name.startswith(beginnings):
            return key
    return "session"
