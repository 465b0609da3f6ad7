"""The clusters file: which clusters there are and how the portal reaches them. Pure: text in, values out.

An administrator edits this file; ``config/clusters.example.toml`` explains every line. A mistake is reported
with the cluster's name, the key and what is expected, all mistakes at once.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from portal.errors import FootbridgeError

_MEMORY = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})\s*(?:([kmgt])(?:i?b)?)?\s*", re.IGNORECASE)
_MIB_PER_UNIT = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024 * 1024}


class ClustersError(FootbridgeError):
    """The clusters file is wrong; ``detail`` lists every mistake, one a line."""

    code = "clusters.invalid"


def memory_mib(text: str) -> int:
    """Mebibytes from text such as ``4gb``, ``512 MiB`` or ``1.5g``. A plain number means gibibytes.

    Raises ValueError with a sentence for people.
    """
    match = _MEMORY.fullmatch(text)
    if not match:
        raise ValueError(f"“{text[:40]}” is not an amount of memory; write for example 4gb or 512mb")
    return round(float(match[1]) * _MIB_PER_UNIT[(match[2] or "g").lower()])


def _host_and_port(text: str) -> str:
    match = re.fullmatch(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9][A-Za-z0-9._-]*)(?::([0-9]{1,5}))?", text)
    if not match or not 1 <= int(match[1] or 22) <= 65535:
        raise ValueError("write a host name or address, with :port if it is not 22")
    return text


def _matches(pattern: str, expected: str) -> AfterValidator:
    """The whole text must match; a newline or an option in a name would end up in a script or a command."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"“{text[:40]}” is no {expected}")
        return text

    return AfterValidator(check)


HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
AbsolutePath = Annotated[str, _matches(r"/[^\x00-\x1f\x7f]*", "absolute path")]
BelowHome = Annotated[
    str,
    _matches(r"(?!(?:.*/)?\.{1,2}(?:/|$))[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", "folder below the home folder"),
]
ModuleName = Annotated[str, _matches(r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,127}", "name of a module")]
AccountName = Annotated[str, _matches(r"([A-Za-z0-9_][A-Za-z0-9._-]{0,63})?", "name of an account")]
ListenAddress = Annotated[str, _matches(r"[0-9A-Fa-f.:]*", "address; leave it empty for every interface")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QueueLimits(_Strict):
    """A queue that people may choose, with the limits the form shows and the server enforces."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    label: str = ""
    max_cores: int = Field(default=64, ge=1, le=100_000)
    max_memory_mib: int = Field(default=256 * 1024, ge=1, alias="max_memory")
    max_hours: float = Field(default=24, gt=0, le=24 * 366)
    max_gpus: int = Field(default=0, ge=0, le=1024)

    @field_validator("max_memory_mib", mode="before")
    @classmethod
    def _memory(cls, value: object) -> object:
        """Text or a plain number of gibibytes, as on the form."""
        return memory_mib(str(value)) if isinstance(value, str | int | float) else value


class Maintenance(_Strict):
    """A time in which the cluster is not to be used, both ends with their offset from UTC."""

    begins: AwareDatetime
    ends: AwareDatetime

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.ends <= self.begins:
            raise ValueError("a maintenance must end after it begins")
        return self


class Cluster(_Strict):
    """One scheduler and its login hosts."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    name: str
    scheduler: Literal["pbs", "torque", "slurm"] = "pbs"
    login_hosts: tuple[HostAndPort, ...] = Field(min_length=1)
    host_keys: tuple[str, ...] = ()  # "ssh-ed25519 AAAA…": the keys the login hosts may show
    host_ca_keys: tuple[str, ...] = ()  # of authorities whose certificates the login hosts may show
    commands_folder: Literal[""] | AbsolutePath = ""  # where qsub lives on the login host: /opt/pbs/bin
    credential: Literal["certificate", "enrolled-key", "password"] = "certificate"
    reach: Literal["ssh", "ssh-node", "direct"] = "ssh"  # how the portal gets to the server in a job
    node_ssh_port: int = Field(default=22, ge=1, le=65535)  # the rest of these for reach = "ssh-node" only
    node_host_keys: tuple[str, ...] = ()  # the keys that execution hosts may show
    node_host_ca_keys: tuple[str, ...] = ()  # of authorities whose certificates they may show
    node_known_hosts: Literal[""] | AbsolutePath = ""  # a known_hosts file on the portal's machine
    listen_on: Literal["socket", "port"] = "socket"  # a Unix socket in the job's folder, or a port of loopback
    listen_address: ListenAddress = ""  # what the server in the job binds to; empty: every interface
    sessions_folder: BelowHome = ".footbridge/sessions"  # below the user's home
    queues: tuple[QueueLimits, ...] = Field(min_length=1)
    account: AccountName = ""  # charged for the jobs, where the scheduler wants to know
    modules: tuple[ModuleName, ...] = ()  # environments offered by name, for example anaconda/5.3.0
    image_folders: tuple[AbsolutePath, ...] = ()  # container images are offered from here
    operator: AccountName = ""  # an account that sees every user's jobs; empty: each user asks for their own
    command_timeout_seconds: float = Field(default=20, gt=0, le=600)
    commands_per_second: float = Field(default=4, ge=0.1, le=1000)  # on a login host, by all processes
    connect_timeout_seconds: float = Field(default=10, gt=0, le=120)
    poll_fast_seconds: float = Field(default=3, ge=1, le=300)  # while something is about to change
    poll_slow_seconds: float = Field(default=30, ge=1, le=3600)  # while all is quiet
    start_timeout_seconds: float = Field(default=300, gt=0, le=24 * 3600)  # from running to the first answer
    idle_stop_seconds: int | None = Field(
        default=None, ge=0
    )  # at most, whatever an app says; 0: never; None: the app's
    extend_times: int = Field(default=0, ge=0, le=100)  # how often a session may be extended; needs an operator
    extend_hours: float = Field(default=1, gt=0, le=24 * 31)  # by so much each time
    maintenance: tuple[Maintenance, ...] = ()  # no session is extended into these
    sessions_per_user: int | None = Field(default=None, ge=0, le=1000)  # on this cluster at a time; None: any number
    keep_folders_days: float = Field(default=30, ge=0, le=3650)  # session folders stay so long after the end
    is_demonstration: bool = False

    @field_validator("queues")
    @classmethod
    def _each_queue_once(cls, queues: tuple[QueueLimits, ...]) -> tuple[QueueLimits, ...]:
        names = [queue.name for queue in queues]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"more than one queue is called {', '.join(twice)}")
        return queues

    @model_validator(mode="after")
    def _somebody_may_extend(self) -> Self:
        if self.extend_times and not self.operator:
            raise ValueError("extend_times needs an operator: users may not lengthen their own jobs")
        return self

    @model_validator(mode="after")
    def _can_be_known_and_asked(self) -> Self:
        if not self.host_keys and not self.host_ca_keys:
            raise ValueError("name host_keys, or host_ca_keys: a login host nobody can verify is not spoken to")
        if self.operator and self.credential == "password":
            raise ValueError("an operator cannot be signed in all the time: leave it empty, or use another credential")
        return self

    @model_validator(mode="after")
    def _execution_hosts_can_be_known(self) -> Self:
        named = self.node_host_keys or self.node_host_ca_keys or self.node_known_hosts
        if self.reach == "ssh-node" and not named:
            raise ValueError(
                "reach = ssh-node needs node_host_keys, node_host_ca_keys or node_known_hosts: an execution host that"
                " nobody can verify is not spoken to"
            )
        return self

    @property
    def listens_on_socket(self) -> bool:
        """Whether servers in jobs listen on a Unix socket."""
        return self.reach == "ssh-node" and self.listen_on == "socket"

    @property
    def bind_address(self) -> str:
        """What the server in a job binds to where it listens on a port; empty: every interface."""
        return "127.0.0.1" if self.reach == "ssh-node" else self.listen_address

    def queue(self, name: str) -> QueueLimits | None:
        """The queue called ``name``."""
        return next((queue for queue in self.queues if queue.name == name), None)


def parse_clusters(text: str) -> dict[str, Cluster]:
    """Clusters by id, in the file's order. Raises ClustersError."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ClustersError(f"not valid TOML: {error}") from error
    entries = tables.get("clusters")
    if set(tables) - {"clusters"} or not isinstance(entries, dict) or not entries:
        raise ClustersError("the file must consist of tables [clusters.<id>], at least one")
    clusters: dict[str, Cluster] = {}
    mistakes: list[str] = []
    for cluster_id, entry in entries.items():
        if not isinstance(entry, dict):
            mistakes.append(f"clusters.{cluster_id}: must be a table")
            continue
        if "id" in entry:
            mistakes.append(f"clusters.{cluster_id}.id: the id is the name of the table; leave the key out")
        try:
            clusters[cluster_id] = Cluster.model_validate({**entry, "id": cluster_id})
        except ValidationError as error:
            mistakes += [
                f"clusters.{cluster_id}.{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
                for item in error.errors()
            ]
    if mistakes:
        raise ClustersError("\n".join(mistakes))
    return clusters


def load_clusters(path: Path) -> dict[str, Cluster]:
    """Clusters from a file. Raises ClustersError, also when the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ClustersError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ClustersError(f"{path}: not UTF-8") from error
    return parse_clusters(text)
