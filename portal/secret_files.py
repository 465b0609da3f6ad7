"""Settings from files: a folder in which each file named like a setting holds it, as containers and service managers
hand secrets over. Used by ``portal.conf`` alone.

A file that cannot be what it is named for (a folder that a container engine made in its place, bytes that are no text,
far too many of them) or that this account may not read is a mistake like a wrong setting: the portal would otherwise
start without it, on another database for example. ``check`` says so; while settings are put together, such a file gives
none.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

FOLDER = "secrets_folder"
"""The setting that names the folder."""
MOST_BYTES = 64 * 1024
"""The longest file that is taken for a setting: of a disk image, say, no more is read."""


class SecretFiles(PydanticBaseSettingsSource):
    """What the files say, of settings that ``before`` leave open or empty: an empty line in ``.env`` hides no file.

    The folder is the first that one of ``before`` names: an empty line in the environment does not hide that of
    ``.env`` either.
    """

    def __init__(self, settings_cls: type[BaseSettings], *, before: Collection[PydanticBaseSettingsSource]) -> None:
        super().__init__(settings_cls)
        self._before = before

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Required by pydantic, which asks nobody else for what ``__call__`` gives."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Settings by their names, and the folder's own."""
        given: dict[str, Any] = {}
        for source in self._before:
            given = {name: value for name, value in source().items() if value != ""} | given
        folder = given.get(FOLDER)
        if folder is None:
            return {}
        found: dict[str, Any] = {FOLDER: folder}
        try:
            paths = setting_files(Path(folder), self.settings_cls)
        except OSError:  # check says so
            return found
        for name, path in paths.items():
            if name in given:
                continue
            try:
                text = _text_of(path)
            except OSError:  # as above
                continue
            if text is not None:
                found[name] = text
        return found


def setting_files(folder: Path, settings_cls: type[BaseSettings]) -> dict[str, Path]:
    """The files of ``folder`` that are named like settings, by the settings' names. Raises OSError."""
    prefix = str(settings_cls.model_config["env_prefix"])
    names = {f"{prefix}{name}".upper(): name for name in settings_cls.model_fields}
    paths = sorted(folder.iterdir(), reverse=True)  # of two spellings, capitals count
    return {names[path.name.upper()]: path for path in paths if path.name.upper() in names}


def check(folder: Path, settings_cls: type[BaseSettings]) -> None:
    """Raises ValueError, with what to do, for a folder that cannot be read or a file in it that holds no setting."""
    try:
        paths = setting_files(folder, settings_cls)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"there is no folder {folder}; make it, mount it, or correct its name") from None
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error.strerror}); {ALLOW}") from None
    unusable, unreadable = [], []
    for path in paths.values():
        try:
            if _text_of(path) is None:
                unusable.append(str(path))
        except OSError as error:
            unreadable.append(f"{path} ({error.strerror})")
    mistakes = []
    if unusable:
        mistakes.append(f"no file with text: {', '.join(unusable)}; put the setting into it, or take it away")
    if unreadable:
        mistakes.append(f"cannot be read: {', '.join(unreadable)}; {ALLOW}")
    if mistakes:
        raise ValueError(". ".join(mistakes))


ALLOW = f"let the account with the number {os.geteuid()}, which the portal runs as, read it"
"""What to do about a file or folder that cannot be read."""


def _text_of(path: Path) -> str | None:
    """What a file holds, without the white space around it; ``None`` if that is no text, or too long a one. Raises
    OSError.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        return None
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
