"""What every page knows."""

from __future__ import annotations

import functools
import importlib.metadata
import tomllib

from django.conf import settings
from django.http import HttpRequest

from portal.conf import PROJECT


@functools.cache
def version() -> str:
    """The portal's version, from ``pyproject.toml``."""
    try:
        return importlib.metadata.version("footbridge")
    except importlib.metadata.PackageNotFoundError:
        text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
        return str(tomllib.loads(text)["project"]["version"])


def site(request: HttpRequest) -> dict[str, object]:
    """Names of the site, for every template."""
    return {
        "site_name": settings.CONF.site_name,
        "support": settings.CONF.support,
        "is_demo": settings.CONF.demo,
        "version": version(),
        "languages": settings.LANGUAGES,
    }
