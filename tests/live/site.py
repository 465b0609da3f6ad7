"""The real cluster of the live suite, as environment variables describe it. CONTRIBUTING.md lists them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from launcher.clusters import Cluster
from launcher.parts import clusters, hands, hands_loop
from launcher.schedulers.base import Command
from launcher.ssh.ca import load_user_ca
from launcher.ssh.credentials import CertificateCredential, Credential, PasswordCredential
from launcher.ssh.errors import LoginRefused
from tests.conftest import toml_value

PREFIX = "FOOTBRIDGE_LIVE_"
CLUSTER_ID = "live"
NEEDED = ("HOST", "HOST_KEY", "USER", "OTHER_USER", "COMMANDS", "QUEUE", "EXECUTION_HOST")
USUAL = {
    "PORT": "22",
    "PASSWORD": "",
    "OTHER_PASSWORD": "",
    "CA_KEY": "",
    "SCHEDULER": "pbs",
    "ENVIRONMENT": "default",
    "OPERATOR": "",
    "OPERATOR_PASSWORD": "",
}
COMMAND_SECONDS = 30


def why_not() -> str:
    """Why the live suite cannot run; empty when it can."""
    missing = [PREFIX + name for name in NEEDED if not os.environ.get(PREFIX + name)]
    if not os.environ.get(PREFIX + "CA_KEY"):
        missing += [PREFIX + name for name in ("PASSWORD", "OTHER_PASSWORD") if not os.environ.get(PREFIX + name)]
    if len(missing) == len(NEEDED) + 2:
        return f"no real cluster is named ({PREFIX}HOST and others, see CONTRIBUTING.md)"
    return f"not set: {', '.join(missing)}" if missing else ""


@dataclass(frozen=True, slots=True)
class Passwords:
    """Acts as the test accounts by their passwords, where the login host does not trust a CA of ours."""

    on_refusal: ClassVar[str] = PasswordCredential.on_refusal
    refused: ClassVar[type[LoginRefused]] = LoginRefused

    of: Mapping[str, str] = field(repr=False)

    async def options(self, cluster: Cluster, username: str, reason: str) -> Mapping[str, object]:
        """See Credential."""
        return await PasswordCredential(self.of[username]).options(cluster, username, reason)


@dataclass(frozen=True, slots=True)
class LiveSite:
    """The cluster and its two test accounts."""

    values: Mapping[str, str] = field(repr=False)

    @property
    def user(self) -> str:
        """The account that does most."""
        return self.values["USER"]

    @property
    def other_user(self) -> str:
        """The account that must not get at what the first one has."""
        return self.values["OTHER_USER"]

    @property
    def password(self) -> str:
        """That of the first account; empty where a CA is used."""
        return self.values["PASSWORD"]

    @property
    def operator(self) -> str:
        """An account that sees all jobs and may lengthen them; empty where there is none."""
        return self.values["OPERATOR"]

    @property
    def execution_host(self) -> str:
        """Where jobs run, as the scheduler names it."""
        return self.values["EXECUTION_HOST"]

    @property
    def raw(self) -> dict[str, object]:
        """A small session, as the form would send it."""
        common = {"cores": "1", "memory": "1 GB", "hours": "0.25", "title": "Live suite"}
        return {**common, "queue": self.values["QUEUE"], "environment": self.values["ENVIRONMENT"]}

    def credential(self) -> Credential:
        """What the portal acts with: certificates of a CA that the login host trusts, or the accounts' passwords."""
        if self.values["CA_KEY"]:
            return CertificateCredential(load_user_ca(Path(self.values["CA_KEY"])), portal_name="live suite")
        return Passwords(
            {
                self.user: self.password,
                self.other_user: self.values["OTHER_PASSWORD"],
                self.operator: self.values["OPERATOR_PASSWORD"],
            }
        )

    def toml(self, **changes: object) -> str:
        """The clusters file."""
        kind, _, name = self.values["ENVIRONMENT"].partition(":")
        entries: dict[str, object] = {
            "name": "Live",
            "scheduler": self.values["SCHEDULER"],
            "login_hosts": [f"{self.values['HOST']}:{self.values['PORT']}"],
            "host_keys": self.values["HOST_KEY"].split(","),
            "commands_folder": self.values["COMMANDS"],
            "modules": [name] if kind == "module" else [],
            "poll_fast_seconds": 2,
        } | changes
        lines = [f"[clusters.{CLUSTER_ID}]", *(f"{key} = {toml_value(value)}" for key, value in entries.items())]
        return "\n".join([*lines, "", f"[[clusters.{CLUSTER_ID}.queues]]", f'name = "{self.values["QUEUE"]}"', ""])

    def run(self, user: str, *command: str, stdin: bytes = b"") -> str:
        """What a command prints on the login host; those of the scheduler are found without a path."""
        folder = shlex.quote(self.values["COMMANDS"])
        line = f"PATH={folder}:$PATH; export PATH; exec {shlex.join(command)}"
        work = hands().run(clusters()[CLUSTER_ID], user, Command(("sh", "-c", line), stdin=stdin))
        result = hands_loop().run(work, COMMAND_SECONDS)
        assert result.exit_status == 0, (command, result)
        return result.stdout.decode()


def live_site() -> LiveSite:
    """As the environment says. Call it where ``why_not`` is silent."""
    names = (*NEEDED, *USUAL)
    return LiveSite({name: os.environ.get(PREFIX + name) or USUAL.get(name, "") for name in names})
