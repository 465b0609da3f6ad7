"""Settings from files: a folder in which each file named like a setting holds it, as containers and service managers
hand secrets over. Used by ``portal.conf`` alone.

A file that cannot be what it is named for (a folder that a container engine made in its place, bytes that are no text)
is a mistake like a wrong setting: the portal would otherwise start without it, on another database for example.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource


class SecretFiles(PydanticBaseSettingsSource):
    """What the files say, of settings that ``before`` leave open or empty: an empty line in ``.env`` hides no file."""

    def __init__(
        self, settings_cls: type[BaseSettings], folder: Path | None, *, before: Collection[PydanticBaseSettingsSource]
    ) -> None:
        super().__init__(settings_cls)
        self._folder = folder
        self._before = before

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Required by pydantic, which asks nobody else for what ``__call__`` gives."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Settings by their names. Raises OSError for a file that this account may not read."""
        if self._folder is None:
            return {}
        given = {name for source in self._before for name, value in source().items() if value != ""}
        texts = {name: _text_of(path) for name, path in setting_files(self._folder, self.settings_cls).items()}
        return {name: text for name, text in texts.items() if text is not None and name not in given}


def setting_files(folder: Path, settings_cls: type[BaseSettings]) -> dict[str, Path]:
    """The files of ``folder`` that are named like settings, by the settings' names."""
    prefix = str(settings_cls.model_config["env_prefix"])
    names = {f"{prefix}{name}".upper(): name for name in settings_cls.model_fields}
    paths = sorted(folder.iterdir(), reverse=True)  # of two spellings, capitals count
    return {names[path.name.upper()]: path for path in paths if path.name.upper() in names}


def unusable(folder: Path, settings_cls: type[BaseSettings]) -> list[Path]:
    """The files among these that hold no setting."""
    return [path for path in setting_files(folder, settings_cls).values() if _text_of(path) is None]


def _text_of(path: Path) -> str | None:
    """What a file holds, without the white space around it; ``None`` if that is no text."""
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
