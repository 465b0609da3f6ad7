"""The apps a user can launch, read from their folders: ``apps/<id>/{app.toml, script.sh.j2, icon.svg}``.
Pure.

An administrator edits these folders. All mistakes in all of them are reported at once, with file and key.
The values a launch consists of are checked in ``launcher.choices``; its names can be imported from here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from launcher.appfile import App, FormField
from launcher.choices import (
    ChoicesRefused,
    LaunchChoices,
    Mistake,
    check_choices,
    default_choices,
    limits,
)
from launcher.rawvalues import Limits
from launcher.scripttemplate import template_mistakes
from portal.errors import FootbridgeError

__all__ = [
    "App",
    "CatalogError",
    "ChoicesRefused",
    "FormField",
    "LaunchChoices",
    "Limits",
    "Mistake",
    "check_choices",
    "default_choices",
    "limits",
    "load_apps",
]

APP_NAME = "app.toml"
SCRIPT_NAME = "script.sh.j2"
ICON_NAME = "icon.svg"
MAX_FILE_BYTES = 256 * 1024
_FROM_THE_FOLDER = frozenset({"id", "icon", "script"})


class CatalogError(FootbridgeError):
    """The folders of apps are wrong; ``detail`` lists every mistake, one a line."""

    code = "catalog.invalid"


def load_apps(folders: Sequence[Path]) -> dict[str, App]:
    """Apps by id, in the order of ``folders`` and of their names. A later folder replaces an app of the
    same id.

    A site can so keep its own apps beside ours. Raises CatalogError.
    """
    apps: dict[str, App] = {}
    mistakes: list[str] = []
    for folder in folders:
        try:
            entries = sorted(entry for entry in folder.iterdir() if entry.is_dir())
        except OSError as error:
            mistakes.append(f"{folder}: {error.strerror}")
            continue
        for entry in entries:
            if entry.name.startswith((".", "_")):
                continue
            app, wrong = _load(entry)
            mistakes += wrong
            if app is not None:
                apps[app.id] = app
    if mistakes:
        raise CatalogError("\n".join(mistakes))
    return apps


def _load(folder: Path) -> tuple[App | None, list[str]]:
    """The app in ``folder``, or what is wrong with it."""
    toml_path, script_path, icon_path = folder / APP_NAME, folder / SCRIPT_NAME, folder / ICON_NAME
    try:
        table = tomllib.loads(_read(toml_path).decode("utf-8"))
        script = _read(script_path).decode("utf-8")
        icon = _read(icon_path) if icon_path.exists() else None
    except OSError as error:
        return None, [f"{error.filename}: {error.strerror}"]
    except ValueError as error:  # not TOML, not UTF-8, too large
        return None, [f"{folder}: {error}"]
    wrong = [f"{script_path}: {mistake}" for mistake in template_mistakes(script)]
    wrong += [f"{toml_path}: {key}: unknown key" for key in sorted(_FROM_THE_FOLDER & set(table))]
    try:
        app = App.model_validate({**table, "id": folder.name, "script": script, "icon": icon})
    except ValidationError as error:
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"])
            wrong.append(f"{toml_path}: {where}: {item['msg']}" if where else f"{toml_path}: {item['msg']}")
        return None, wrong
    return (None, wrong) if wrong else (app, [])


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_FILE_BYTES} bytes")
    return data
