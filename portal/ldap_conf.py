"""The settings of signing in by LDAP."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode


class LdapConf(BaseSettings):
    """What an administrator can set about the directory. Counts when ``PORTAL_AUTH`` names ``ldap``."""

    ldap_url: str = ""
    """The directory: ``ldaps://host``, or ``ldap://host`` together with ``ldap_start_tls``. Without TLS only this
    computer's own addresses are accepted, and ``ldapi://``, a socket on it."""
    ldap_start_tls: bool = False
    """Turn TLS on before anything is said."""
    ldap_ca_file: Path | None = None
    """The certificates that sign the directory's. Empty: those of the operating system."""
    ldap_bind_dn: str = ""
    """Who looks people up. Empty: nobody in particular, an anonymous search."""
    ldap_bind_password: SecretStr = SecretStr("")
    """Their password."""
    ldap_user_base: str = ""
    """Below which entry people are looked up, for example ``ou=people,dc=cluster,dc=example``."""
    ldap_user_filter: str = "(uid=%(user)s)"
    """The filter that finds the one entry of an account; ``%(user)s`` stands for the name that was typed."""
    ldap_account_attribute: str = "uid"
    """The attribute with the name of the account on the cluster, spelt as there."""
    ldap_name_attribute: str = "cn"
    """The attribute with the name that pages show."""
    ldap_mail_attribute: str = "mail"
    """The attribute with the e-mail address."""
    ldap_group_base: str = ""
    """Below which entry groups are looked up: those that name the person's entry in ``member`` or
    ``uniqueMember``, or the account in ``memberUid``. Empty: nobody has a group."""
    ldap_claims: Annotated[tuple[str, ...], NoDecode] = ()
    """More attributes of a person that rules such as ``administrator_claims`` may name."""
    ldap_seconds: float = 5
    """How long the directory may take for each answer."""

    @field_validator("ldap_ca_file", mode="before")
    @classmethod
    def _no_file(cls, value: object) -> object:
        return value or None

    @field_validator("ldap_claims", mode="before")
    @classmethod
    def _split_claims(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    def check_ldap(self) -> None:
        """Raises ValueError, in words, for settings that cannot work or would show passwords to the network."""
        parts = urlsplit(self.ldap_url)
        if parts.scheme not in ("ldap", "ldaps", "ldapi"):
            raise ValueError("PORTAL_LDAP_URL must be the directory's address, such as ldaps://directory.example.org")
        if parts.scheme == "ldap" and not self.ldap_start_tls and not _is_here(parts.hostname or ""):
            raise ValueError(
                "PORTAL_LDAP_URL would send passwords in the clear; use ldaps://, or set PORTAL_LDAP_START_TLS=true"
            )
        if not self.ldap_user_base:
            raise ValueError("PORTAL_LDAP_USER_BASE must say where people are, such as ou=people,dc=example,dc=org")
        if self.ldap_user_filter.count("%(user)s") < 1 or "%" in self.ldap_user_filter.replace("%(user)s", ""):
            raise ValueError("PORTAL_LDAP_USER_FILTER must contain %(user)s, and no other %")
        if self.ldap_bind_dn and not self.ldap_bind_password.get_secret_value():
            raise ValueError("PORTAL_LDAP_BIND_DN needs PORTAL_LDAP_BIND_PASSWORD: without one a bind is anonymous")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
