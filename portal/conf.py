"""Every ``PORTAL_*`` setting in one typed class: the only reader of the environment.

Values come from the environment or from a ``.env`` file beside ``manage.py``. All mistakes are reported at once, and
the portal refuses to start with an unsafe one: a short secret, debugging outside the demo, a CA key others can read.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import ipaddress
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from portal.ldap_conf import LdapConf
from portal.mailserver import MailServer, is_sender, parse_mail_server
from portal.openid_conf import OpenIdConf
from portal.pam_conf import PamConf
from portal.secret_files import ALLOW, FOLDER, SecretFiles, check, setting_files

PROJECT = Path(__file__).resolve().parent.parent
"""The folder that holds ``manage.py``."""

WAYS_TO_SIGN_IN = ("cluster", "ldap", "pam", "openid")
"""What ``PORTAL_AUTH`` may name; ``portal.accounts.ways`` has a class for each."""

Names = Annotated[tuple[str, ...], NoDecode]
"""Several names in one variable, separated by commas or spaces."""


Secrets = Annotated[tuple[SecretStr, ...], NoDecode]
"""Several secrets in one variable, separated by commas or spaces."""


def _check_private(path: Path, setting: str) -> None:
    """Raises ValueError for a file that others than its owner may read. ``setting``: what names it, or would."""
    try:
        others_may = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except (FileNotFoundError, NotADirectoryError):  # it is made, or missed, when it is needed
        return
    except OSError as error:
        raise ValueError(f"{setting}: {path} cannot be looked at ({error.strerror}); {ALLOW}") from None
    if others_may:
        raise ValueError(f"{path} can be read by others; run: chmod 600 {path}")


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets around no address, a port that is no number
        return False


class Conf(LdapConf, OpenIdConf, PamConf):
    """What an administrator can set. Each attribute is read from ``PORTAL_`` plus its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="PORTAL_",
        env_file=PROJECT / ".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # what is wrong may be a password
    )

    secrets_folder: Path | None = None
    """A folder with settings as files: what is in ``PORTAL_SECRET_KEY`` there is that setting, and so on. For
    containers and service managers that hand secrets over as files, so that they stand in no environment. What the
    environment and ``.env`` set wins, unless it is empty."""
    secret_key: SecretStr
    """Signs cookies. At least 32 characters, random."""
    secret_key_fallbacks: Secrets = ()
    """Secret keys of earlier, newest first: what they signed stays valid while a new key takes over."""
    demo: bool = False
    """Set by ``manage.py demo`` only: allows plain HTTP and says on every page that this is a demonstration."""
    demo_cluster_port: int = Field(default=0, ge=0, le=65535)
    """The SSH port of the cluster that ``manage.py demo`` starts. 0: a free one."""
    debug: bool = False
    """Django's debug pages. Refused outside the demo."""
    site_name: str = "Footbridge"
    """The name people see on every page."""
    support: str = ""
    """Whom to ask for help: an e-mail address or a web address, shown on error pages."""

    host: str = "127.0.0.1"
    """The address the web process listens on."""
    port: int = Field(default=8000, ge=1, le=65535)
    """The port the web process listens on."""
    serves: Literal["all", "pages", "sessions"] = "all"
    """What a web process answers: everything, or only the portal's pages, or only sessions' own addresses."""
    drain_seconds: float = Field(default=10, ge=0, le=3600)
    """How long a web process that is told to stop goes on with what is under way, at most. 0: it stops at once."""
    url: str = ""
    """The portal's address as browsers see it, for example ``https://notebooks.example.org``.
    Empty: ``http://localhost:<port>``."""
    sessions_domain: str = "localhost"
    """Each session is served at ``<random>.<sessions_domain>``, which needs wildcard DNS, except for ``localhost``."""
    session_addresses: Literal["host", "path"] = "host"
    """``host``: each new session has an origin of its own. ``path``: it is served below the portal's address, at
    ``/s/<id>/``, for sites without wildcard DNS; notebooks' pages are then not kept apart from the portal's."""
    trusted_proxies: Names = ()
    """Addresses of reverse proxies in front of the portal whose ``X-Forwarded-For`` is believed."""

    database_url: str = ""
    """``postgresql://user@host/name`` or ``sqlite:///path``. Empty: SQLite in the data folder."""
    valkey_url: str = "redis://127.0.0.1:6379/0"
    """Redis or Valkey: broker, cache and live updates. ``unix:///path/to.sock`` works too."""
    data_folder: Path = PROJECT / "var"
    """Where the portal keeps keys and, with SQLite, its database."""

    clusters_file: Path = PROJECT / "config" / "clusters.toml"
    """The clusters file; see ``config/clusters.example.toml``."""
    apps_folders: Annotated[tuple[Path, ...], NoDecode] = (PROJECT / "apps",)
    """Folders of apps; a later folder replaces an app of the same name."""
    ssh_ca_key_file: Path | None = None
    """The private key of the portal's SSH user CA, mode 0600. Empty: ``ssh_user_ca`` in the data folder."""
    ssh_fast_path: bool = True
    """Carry what goes through SSH by the portal's own code beside asyncssh's (``launcher.ssh.fastpath``), where a trial
    in the process itself has shown that this works. False: by asyncssh alone, at about half the speed."""
    source_addresses: Names = ()
    """The portal's own addresses or networks as the login hosts see them; its keys and certificates are good from
    nowhere else. Empty: from anywhere."""
    encryption_key_files: Annotated[tuple[Path, ...], NoDecode] = ()
    """Files with Fernet keys for secrets in the database; the first encrypts, all decrypt.
    Empty: ``encryption.key`` in the data folder."""

    auth: Names = ("cluster",)
    """Ways to sign in, in the order they are tried. ``cluster``: the cluster's password, checked by an SSH login.
    ``ldap``: a directory's. ``pam``: this computer's own. ``openid``: an OpenID provider."""
    auth_cluster: str = ""
    """The cluster whose login host checks passwords. Empty: the first of the clusters file."""
    administrators: Names = ()
    """Accounts that are administrators."""
    administrator_groups: Names = ()
    """Members of these groups on the cluster are administrators."""
    administrator_claims: Names = ()
    """Who signs in with one of these claims (``name=value``, as the provider or the directory says it) is an
    administrator."""
    auditors: Names = ()
    """Accounts that are auditors: they see all sessions and the audit log, and change nothing."""
    auditor_groups: Names = ()
    """Members of these groups on the cluster are auditors."""
    auditor_claims: Names = ()
    """Who signs in with one of these claims (``name=value``) is an auditor."""
    allowed_users: Names = ()
    """When this, ``allowed_groups`` or ``allowed_claims`` is set, only these accounts may sign in, members of those
    groups, and who signs in with one of those claims."""
    allowed_groups: Names = ()
    """See ``allowed_users``."""
    allowed_claims: Names = ()
    """See ``allowed_users``."""
    sessions_per_user: int = Field(default=1, ge=1, le=100)
    """How many sessions a person may have at a time unless an administrator allowed them or their group another."""
    hours_per_session: float | None = Field(default=None, gt=0, le=24 * 366)
    """How many hours a session may ask for, with the same exceptions. Empty: as many as the queue allows."""
    sign_in_attempts: int = Field(default=5, ge=1)
    """Wrong passwords per account and ten minutes before the portal stops asking the cluster."""
    hours_signed_in: float = Field(default=12, gt=0)
    """After so many hours a person signs in again."""
    second_factor: Literal["optional", "administrators", "everybody"] = "optional"
    """Who must have a second step at sign-in: a code from an app, or a passkey. The others may."""
    minutes_before_asking_again: float = Field(default=15, gt=0, le=24 * 60)
    """Who administers proves again who they are when the last proof is older than this."""
    open_as_user: bool = False
    """Whether administrators may open somebody's session, for a reason that they write down and its owner reads."""

    requests_per_session: int = Field(default=320, ge=8)
    """How many requests of one session may be under way at a time in each web process."""
    sockets_per_session: int = Field(default=256, ge=8)
    """How many WebSockets of one session may be open at a time in each web process."""
    requests_per_user: int = Field(default=640, ge=8)
    """The same for all sessions of a person together."""
    sockets_per_user: int = Field(default=512, ge=8)
    """The same for all sessions of a person together."""
    api_requests_per_minute: int = Field(default=300, ge=1, le=60_000)
    """How many requests to the API a person's programs may make in a minute, in all web processes together."""
    fast_lane: bool = True
    """Whether notebooks' bytes go from socket to socket below the ASGI interface; off, only if that is suspected."""

    email_url: SecretStr = SecretStr("")
    """The mail server: ``smtp://user:password@host:587`` or ``smtps://…``; see ``portal.mailserver`` for the rule of
    TLS. Empty: no mail, and no page offers it."""
    email_from: str = ""
    """The sender of mails. Empty: ``no-reply@`` and the portal's host."""

    log_format: Literal["text", "json"] = "text"
    """``json`` writes one object a line."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much is logged."""

    @field_validator(
        "secret_key_fallbacks",
        "trusted_proxies",
        "source_addresses",
        "auth",
        "administrators",
        "administrator_groups",
        "administrator_claims",
        "auditors",
        "auditor_groups",
        "auditor_claims",
        "allowed_users",
        "allowed_groups",
        "allowed_claims",
        mode="before",
    )
    @classmethod
    def _split_names(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("apps_folders", "encryption_key_files", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return tuple(part for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("secrets_folder", "ssh_ca_key_file", "hours_per_session", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return value or None

    @field_validator("secrets_folder")
    @classmethod
    def _is_folder(cls, value: Path | None) -> Path | None:
        if value is not None:
            check(value, cls)
        return value

    @property
    def secret_files(self) -> tuple[Path, ...]:
        """The files with settings."""
        return tuple(setting_files(self.secrets_folder, type(self)).values()) if self.secrets_folder else ()

    @field_validator("secret_key")
    @classmethod
    def _long_secret(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 32 or len(set(value.get_secret_value())) < 8:
            raise ValueError("must be random and at least 32 characters; `openssl rand -base64 48` makes one")
        return value

    @field_validator("auth")
    @classmethod
    def _known_ways(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in WAYS_TO_SIGN_IN]
        if unknown or not value:
            names = ", ".join(WAYS_TO_SIGN_IN)
            raise ValueError(
                f"there is no way to sign in called {unknown[0]!r}; name one or several of: {names}"
                if unknown
                else f"names no way to sign in; name one or several of: {names}"
            )
        return tuple(dict.fromkeys(value))

    @field_validator("administrator_claims", "auditor_claims", "allowed_claims")
    @classmethod
    def _claims(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for claim in value:
            name, equals, wanted = claim.partition("=")
            if not (name and equals and wanted):
                raise ValueError(f"{claim!r} is no claim; write name=value, for example role=hpc-admin")
        return value

    @field_validator("source_addresses")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Raises ValueError for what sshd would not understand, or would take for a pattern."""
        return tuple(
            str(ipaddress.ip_network(each)) if "/" in each else str(ipaddress.ip_address(each)) for each in value
        )

    @field_validator("sessions_domain")
    @classmethod
    def _plain_domain(cls, value: str) -> str:
        return value.lower().strip(".")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Settings from files where the others leave them open, of the folder that those name."""
        files = SecretFiles(settings_cls, before=(env_settings, dotenv_settings))
        return init_settings, files, env_settings, dotenv_settings

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.debug and not self.demo:
            raise ValueError("PORTAL_DEBUG shows secrets to visitors and is refused outside the demo")
        if not _is_web_address(self.portal_url):
            raise ValueError("PORTAL_URL must be a web address such as https://notebooks.example.org")
        if "openid" in self.auth:
            self.check_openid()
        if "ldap" in self.auth:
            self.check_ldap()
        if self.email_url.get_secret_value():
            parse_mail_server(self.email_url.get_secret_value())
        if not is_sender(self.mail_from):
            raise ValueError("PORTAL_EMAIL_FROM must be an address on one line: Name <name@example.org>")
        _check_private(self.ca_key_path, "PORTAL_SSH_CA_KEY_FILE")
        for path in self.encryption_key_paths:
            _check_private(path, "PORTAL_ENCRYPTION_KEY_FILES")
        return self

    @property
    def portal_url(self) -> str:
        """The portal's address without a slash at the end."""
        return (self.url or f"http://localhost:{self.port}").rstrip("/")

    @property
    def is_https(self) -> bool:
        """Whether browsers reach the portal over TLS; decides the ``Secure`` mark of cookies."""
        return self.portal_url.startswith("https://")

    @property
    def mail_server(self) -> MailServer | None:
        """The mail server, where there is one."""
        address = self.email_url.get_secret_value()
        return parse_mail_server(address) if address else None

    @property
    def mail_from(self) -> str:
        """The sender of mails."""
        return self.email_from or f"no-reply@{urlsplit(self.portal_url).hostname}"

    @property
    def ca_key_path(self) -> Path:
        """The private key of the SSH user CA."""
        return self.ssh_ca_key_file or self.data_folder / "ssh_user_ca"

    @property
    def encryption_key_paths(self) -> tuple[Path, ...]:
        """Files with Fernet keys."""
        return self.encryption_key_files or (self.data_folder / "encryption.key",)

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.data_folder / 'footbridge.sqlite3'}"


@functools.cache
def conf() -> Conf:
    """The settings of this process. Ends it where they are wrong, with a line for every mistake."""
    try:
        return Conf()  # type: ignore[call-arg]  # pydantic-settings fills the required fields from the environment
    except ValidationError as error:
        mistakes = [_line(item["loc"], item["msg"]) for item in error.errors()]
    except (OSError, UnicodeDecodeError) as error:
        mistakes = [unreadable(error)]
    raise SystemExit("\n".join(["The portal cannot start with these settings:", *(f"  {line}" for line in mistakes)]))


def unreadable(error: OSError | UnicodeDecodeError) -> str:
    """What is wrong with ``.env``: of every other file, validators make a sentence."""
    if isinstance(error, UnicodeDecodeError):
        return f"{PROJECT / '.env'} is no text in UTF-8; save it so"
    return f"{error.filename or PROJECT / '.env'} cannot be read: {error.strerror or error}"


def _line(location: Sequence[object], message: str) -> str:
    """One of pydantic's errors, which hold no values here."""
    name = f"PORTAL_{str(location[0]).upper()}: " if location else ""
    return name + ("is not set" if message == "Field required" else message.removeprefix("Value error, "))


def unknown_settings() -> dict[str, str]:
    """Names like PORTAL_SECERT_KEY that are set and mean nothing, each with the setting it is nearest to, or nothing.

    Raises OSError or UnicodeDecodeError when there is a ``.env`` that cannot be read. A folder of secrets that cannot
    is left out.
    """
    prefix = str(Conf.model_config["env_prefix"])
    known = [f"{prefix}{name}".upper() for name in Conf.model_fields]
    in_file = dotenv_values(PROJECT / ".env")
    names = {name.upper() for name in (*os.environ, *in_file)}
    setting = f"{prefix}{FOLDER}".upper()
    if folder := os.environ.get(setting) or in_file.get(setting):
        with contextlib.suppress(OSError):
            names |= {path.name.upper() for path in Path(folder).iterdir()}
    return {
        name: next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.75)), "")
        for name in sorted(names.difference(known))
        if name.startswith(prefix)
    }
