"""What every page knows."""

from __future__ import annotations

import functools
import importlib.metadata
import tomllib

from django.conf import settings
from django.http import HttpRequest

from launcher import credential_state
from portal.conf import PROJECT


@functools.cache
def version() -> str:
    """The portal's version, from ``pyproject.toml``."""
    try:
        return importlib.metadata.version("footbridge")
    except importlib.metadata.PackageNotFoundError:
        text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
        return str(tomllib.loads(text)["project"]["version"])


@functools.cache
def _demo_accounts() -> list[tuple[str, str]]:
    """Accounts of the demonstration cluster, shown on the sign-in page of the demo; none anywhere else."""
    if not settings.CONF.demo:
        return []
    from launcher.democluster.settings import DEFAULT_ACCOUNTS

    return [(account.name, account.password) for account in DEFAULT_ACCOUNTS]


def site(request: HttpRequest) -> dict[str, object]:
    """Names of the site, for every template."""
    return {
        "site_name": settings.CONF.site_name,
        "support": settings.CONF.support,
        "is_demo": settings.CONF.demo,
        "version": version(),
        "demo_accounts": _demo_accounts(),
        "languages": settings.LANGUAGES,
        "rejected_host_keys": _rejected_host_keys(request),
    }


def _rejected_host_keys(request: HttpRequest) -> list[tuple[str, str]]:
    """For administrators: login hosts that are not the ones we know."""
    user = getattr(request, "user", None)  # not there where a request failed early
    return credential_state.rejected_host_keys() if getattr(user, "is_administrator", False) else []
