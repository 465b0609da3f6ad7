"""The clusters file: which clusters there are and how the portal reaches them. Pure: TOML text in, checked values out.

An administrator edits this file; ``config/clusters.example.toml`` explains every line. A mistake is reported with the
cluster's name, the key and what is expected, all mistakes at once.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from portal.errors import FootbridgeError

_MEMORY = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?\s*$", re.IGNORECASE)
_MIB_PER_UNIT = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024 * 1024}


class ClustersError(FootbridgeError):
    """The clusters file is wrong; ``detail`` lists every mistake, one a line."""

    code = "clusters.invalid"


def memory_mib(text: str) -> int:
    """Mebibytes from text such as ``4gb``, ``512 MiB`` or ``1.5g``. A plain number means gibibytes, as on the form.

    Raises ValueError with a sentence for people.
    """
    match = _MEMORY.match(text)
    if not match:
        raise ValueError(f"“{text[:40]}” is not an amount of memory; write for example 4gb or 512mb")
    return round(float(match[1]) * _MIB_PER_UNIT[match[2].lower() or "g"])


def _host_and_port(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", text):
        raise ValueError("write a host name or address, with :port if it is not 22")
    return text


HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
Memory = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QueueLimits(_Strict):
    """A queue that people may choose, with the limits the form shows and the server enforces."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    label: str = ""
    max_cores: int = Field(default=64, ge=1, le=100_000)
    max_memory_mib: int = Field(default=256 * 1024, ge=1, alias="max_memory")
    max_hours: float = Field(default=24, gt=0, le=24 * 366)
    max_gpus: int = Field(default=0, ge=0, le=1024)

    @field_validator("max_memory_mib", mode="before")
    @classmethod
    def _memory(cls, value: object) -> object:
        return memory_mib(value) if isinstance(value, str) else value


class Cluster(_Strict):
    """One scheduler and its login hosts."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    name: str
    scheduler: Literal["pbs", "torque", "slurm"] = "pbs"
    login_hosts: tuple[HostAndPort, ...] = Field(min_length=1)
    host_keys: tuple[str, ...] = Field(min_length=1)  # "ssh-ed25519 AAAA…": the keys the login hosts may show
    commands_folder: str = ""  # where qsub and friends live on the login host, for example /opt/pbs/bin
    credential: Literal["certificate"] = "certificate"
    reach: Literal["ssh"] = "ssh"
    listen_address: str = ""  # what the server in the job binds to; empty: every interface of the execution host
    sessions_folder: str = ".footbridge/sessions"  # below the user's home
    queues: tuple[QueueLimits, ...] = Field(min_length=1)
    account: str = ""
    modules: tuple[str, ...] = ()  # environments offered by name, for example anaconda/5.3.0
    image_folders: tuple[str, ...] = ()  # container images are offered from here
    operator: str = ""  # an account whose status command sees every user's jobs; empty: each user asks for their own
    command_timeout_seconds: float = Field(default=20, gt=0, le=600)
    connect_timeout_seconds: float = Field(default=10, gt=0, le=120)
    poll_fast_seconds: float = Field(default=3, ge=1, le=300)  # while something is about to change
    poll_slow_seconds: float = Field(default=30, ge=1, le=3600)  # while all is quiet
    start_timeout_seconds: float = Field(default=300, gt=0)  # from running to the server's first answer
    is_demonstration: bool = False

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
        try:
            clusters[cluster_id] = Cluster.model_validate({**entry, "id": cluster_id})
        except ValidationError as error:
            mistakes += [
                f"clusters.{cluster_id}.{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
                for item in error.errors()
            ]
        except TypeError:
            mistakes.append(f"clusters.{cluster_id}: must be a table")
    if mistakes:
        raise ClustersError("\n".join(mistakes))
    return clusters


def load_clusters(path: Path) -> dict[str, Cluster]:
    """Clusters from a file. Raises ClustersError, also when the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ClustersError(f"{path}: {error.strerror}") from error
    return parse_clusters(text)
