"""The settings of signing in by OpenID Connect: a part of ``portal.conf.Conf``, which alone reads them."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_safe_address(address: str) -> bool:
    """Whether the portal may talk to ``address``: HTTPS, or plain HTTP on this very machine."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not address.isascii() or re.search(r"[\s\x00-\x1f\x7f]", address) or parts.username is not None:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)))


class OpenIdConf(BaseSettings):
    """What matters only where ``PORTAL_AUTH`` names ``openid``."""

    openid_issuer: str = ""
    """The provider's address, exactly as it names itself: ``https://login.example.org/realms/hpc``."""
    openid_client_id: str = ""
    """What the portal is called at the provider."""
    openid_client_secret: SecretStr = SecretStr("")
    """The secret that goes with it. Empty: the file, or none where the provider lets a client do without."""
    openid_client_secret_file: Path | None = None
    """A file with that secret, mode 0600, instead of the variable."""
    openid_scopes: Annotated[tuple[str, ...], NoDecode] = ("openid", "profile", "email")
    """What the portal asks to be told."""
    openid_account_claim: str = "preferred_username"
    """The claim that the account on the cluster is made from."""
    openid_account_rule: str = ""
    """A regular expression with one group, the account; it must fit the whole claim. Empty: the claim."""
    openid_groups_claim: str = "groups"
    """The claim with the person's groups, for the policy."""
    openid_sign_out: bool = False
    """Whether signing out of the portal leads on to the provider's page for signing out, where it has one."""
    openid_button: str = ""
    """What the button on the sign-in page says. Empty: a general sentence."""

    @field_validator("openid_scopes", mode="before")
    @classmethod
    def _split_scopes(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("openid_client_secret_file", mode="before")
    @classmethod
    def _empty_file_is_none(cls, value: object) -> object:
        return value or None

    def check_openid(self) -> None:
        """Raises ValueError for what cannot work or is not safe."""
        if not self.openid_issuer or not self.openid_client_id:
            raise ValueError("PORTAL_AUTH names openid, which needs PORTAL_OPENID_ISSUER and PORTAL_OPENID_CLIENT_ID")
        parts = urlsplit(self.openid_issuer)
        if not is_safe_address(self.openid_issuer) or parts.query or parts.fragment:
            raise ValueError("PORTAL_OPENID_ISSUER must be an https address without ? and #")
        if "openid" not in self.openid_scopes:
            raise ValueError("PORTAL_OPENID_SCOPES must name openid")
        if not self.openid_account_claim:
            raise ValueError("PORTAL_OPENID_ACCOUNT_CLAIM must name a claim")
        if self.openid_account_claim == "email" and not self.openid_account_rule:
            raise ValueError("PORTAL_OPENID_ACCOUNT_CLAIM=email needs a PORTAL_OPENID_ACCOUNT_RULE")
        try:
            groups = re.compile(self.openid_account_rule).groups
        except re.error as error:
            raise ValueError(f"PORTAL_OPENID_ACCOUNT_RULE is no regular expression: {error}") from error
        if self.openid_account_rule and groups != 1:
            raise ValueError("PORTAL_OPENID_ACCOUNT_RULE must have exactly one group: the account")
        if self.openid_client_secret_file is not None:
            if self.openid_client_secret.get_secret_value():
                raise ValueError("set PORTAL_OPENID_CLIENT_SECRET or PORTAL_OPENID_CLIENT_SECRET_FILE, not both")
            try:
                mode = self.openid_client_secret_file.stat().st_mode
            except OSError as error:
                raise ValueError(f"{self.openid_client_secret_file} cannot be read") from error
            if mode & 0o077:
                path = self.openid_client_secret_file
                raise ValueError(f"{path} can be read by others; run: chmod 600 {path}")

    def openid_secret(self) -> str:
        """The client's secret; empty where there is none. Raises OSError when the file cannot be read."""
        if self.openid_client_secret_file is None:
            return self.openid_client_secret.get_secret_value()
        return self.openid_client_secret_file.read_text(encoding="utf-8").strip()
