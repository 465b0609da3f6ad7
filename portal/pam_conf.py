"""The settings of signing in by PAM."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class PamConf(BaseSettings):
    """What an administrator can set about PAM. Counts when ``PORTAL_AUTH`` names ``pam``."""

    pam_service: str = Field(default="footbridge", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """The PAM service that checks passwords: a file of that name in ``/etc/pam.d``."""
