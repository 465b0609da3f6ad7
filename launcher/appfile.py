"""What an ``app.toml`` may say: the schema of an app and its form fields. Pure (pydantic); no files are
read here.

An app is data: texts, the fields of its launch form, the commands that start its server. How it starts is the
``script.sh.j2`` beside it. ``launcher.catalog`` reads the folders.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from launcher.clusters import memory_mib

FieldKind = Literal["environment", "image", "cores", "memory", "hours", "gpus", "queue", "folder", "title"]
REQUIRED_KINDS: frozenset[FieldKind] = frozenset({"cores", "memory", "hours"})
NUMBER_KINDS: frozenset[FieldKind] = frozenset({"cores", "memory", "hours", "gpus"})

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]{2,8})?")
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,127}")
_COMMAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


def _texts(value: object) -> object:
    """A plain string is English."""
    return {"en": value} if isinstance(value, str) else value


def _with_english(value: dict[str, str]) -> dict[str, str]:
    if "en" not in value:
        raise ValueError('needs at least an English text: en = "…"')
    for language in value:
        if not _LANGUAGE.fullmatch(language):
            raise ValueError(f"“{language}” is no language code; write for example en or zh-hans")
    return value


Texts = Annotated[dict[str, str], BeforeValidator(_texts), AfterValidator(_with_english)]
"""A text by language code (lower case: ``en``, ``zh-hans``). English is always there."""


def _matches(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"“{value[:40]}” is no {what}")
        return value

    return AfterValidator(check)


ModuleName = Annotated[str, _matches(_MODULE, "name of a module")]
CommandName = Annotated[str, _matches(_COMMAND, "name of a command (a name without a path or options)")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FormField(_Strict):
    """One field of an app's launch form.

    ``default`` is kept as written, ready for a form: 2, "4 GB", "module:anaconda/5.3.0". ``min`` and
    ``max`` are numbers: cores, GPUs, hours, and mebibytes for memory (in the file also "2gb"); the
    cluster's limits come on top.
    """

    kind: FieldKind
    label: Texts
    help: Texts = Field(default_factory=lambda: {"en": ""})
    default: str | int | float = ""
    min: float | None = None
    max: float | None = None
    advanced: bool = False  # folded away at first

    @property
    def name(self) -> str:
        """The field's key in raw values: its kind."""
        return self.kind

    @model_validator(mode="before")
    @classmethod
    def _amounts_of_memory(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("kind") != "memory":
            return values
        limits = {key: values[key] for key in ("min", "max") if key in values}
        return {**values, **{key: memory_mib(str(limit)) for key, limit in limits.items()}}

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind not in NUMBER_KINDS:
            if self.min is not None or self.max is not None:
                raise ValueError(f"a field of the kind {self.kind} has no min or max")
            if not isinstance(self.default, str):
                raise ValueError(f"the default of {self.kind} must be text")
            return self
        for limit in (self.min, self.max):
            if limit is not None and not math.isfinite(limit):
                raise ValueError("min and max must be finite")
        default = self.default_number
        low = self.min if self.min is not None else 0
        if default < low or (self.max is not None and not low <= default <= self.max):
            raise ValueError("min, default and max must be in this order")
        return self

    @property
    def default_number(self) -> float:
        """The default of a number field, in the unit of ``min`` and ``max``. Raises ValueError on another
        kind."""
        if self.kind == "memory":
            return memory_mib(str(self.default))
        number = float(self.default)
        if not math.isfinite(number) or (self.kind != "hours" and number != int(number)):
            raise ValueError(f"“{self.default}” is no number of {self.kind}")
        return number


class App(_Strict):
    """A catalogue entry a user can launch. ``id``, ``icon`` and ``script`` come from the folder, not from
    the file."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    name: Texts
    description: Texts
    server: Literal["jupyter"]  # which server configuration travels with the job
    start: tuple[CommandName, ...] = Field(min_length=1)  # commands to try, in this order
    modules: tuple[ModuleName, ...] = ()  # loaded before anything else, whatever the user chooses
    container: bool = False  # the server runs inside an image
    idle_stop_seconds: int = Field(default=2 * 3600, ge=0)  # stop when unused for so long; 0: never
    sessions_per_user: int | None = Field(default=None, ge=0, le=1000)  # of this app at a time; None: any number
    fields: tuple[FormField, ...]
    icon: bytes | None = None  # SVG
    script: str = Field(default="", repr=False)  # text of script.sh.j2

    def field(self, kind: str) -> FormField | None:
        """The form field of this kind, if the app has one."""
        return next((field for field in self.fields if field.kind == kind), None)

    @model_validator(mode="after")
    def _has_the_right_fields(self) -> Self:
        kinds = [field.kind for field in self.fields]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"more than one field of the kind {', '.join(twice)}")
        if missing := sorted(REQUIRED_KINDS - set(kinds)):
            raise ValueError(f"no field of the kind {', '.join(missing)}")
        if self.container != ("image" in kinds):
            raise ValueError("an app with container = true has an image field, and only such an app has one")
        if self.container and "environment" in kinds:
            raise ValueError("an app in a container has no environment field: the image is its environment")
        return self
