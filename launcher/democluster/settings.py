"""What a demonstration cluster consists of: its accounts, nodes, queues and delays. Pure values.

The server's folder, port and trusted certificate authority come from whoever starts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SERVER_NAME = "demo-pbs"
"""Name of the scheduler, and so the second half of every job id."""

LOGIN_HOST = "demo-login"
"""Name the login host goes by in job attributes."""

PBS_VERSION = "23.06.06"
"""The release whose answers are imitated."""

MIB_PER_GIB = 1024


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may log in. ``groups``: the first is the primary one."""

    name: str
    password: str = field(repr=False)
    groups: tuple[str, ...] = ("users",)
    is_operator: bool = False  # may act on other users' jobs, as a PBS operator may
    number: int | None = None  # what ``id -u`` says; else by its place among the accounts


DEFAULT_ACCOUNTS = (
    Account("alice", "alice-demo", ("physics", "users")),
    Account("bob", "bob-demo", ("biology", "users")),
    Account("admin", "admin-demo", ("staff", "users"), is_operator=True),
)
"""The accounts of the demonstration. Their passwords are public knowledge."""


@dataclass(frozen=True, slots=True)
class Node:
    """An execution host. Every node is this very machine; the numbers are only accounted for."""

    name: str
    cores: int = 8
    memory_mib: int = 16 * MIB_PER_GIB
    gpus: int = 0


DEFAULT_NODES = (Node("demo-node01"), Node("demo-node02", gpus=2))


@dataclass(frozen=True, slots=True)
class QueueDefinition:
    """A queue and its limits. ``None`` means no limit."""

    name: str
    max_walltime_seconds: int | None = None
    default_walltime_seconds: int = 3600
    max_cores: int | None = None
    max_memory_mib: int | None = None
    max_gpus: int | None = None
    default_gpus: int = 0  # per chunk
    max_queued_per_user: int | None = None
    max_running_per_user: int | None = None
    users: tuple[str, ...] = ()  # who may submit; empty: everybody
    is_enabled: bool = True
    is_started: bool = True


DEFAULT_QUEUES = (
    QueueDefinition("workq", max_walltime_seconds=8 * 3600, max_cores=16, max_gpus=0),
    QueueDefinition("interactive", max_walltime_seconds=3600, max_cores=4, max_gpus=0),
    QueueDefinition("gpuq", max_walltime_seconds=4 * 3600, max_cores=8, max_gpus=2, default_gpus=1),
)


@dataclass(frozen=True, slots=True)
class Delays:
    """How long things take, in seconds. PBS itself is slower in most of them."""

    schedule_seconds: float = 0.1  # from a change to the next scheduling pass
    start_seconds: float = 0.2  # substate 41, before the job's processes run
    exit_seconds: float = 1.0  # state E
    terminate_seconds: float = 5.0  # from TERM to KILL
    walltime_grace_seconds: float = 1.0  # a job is caught this late at its limit
    slow_seconds: float = 5.0  # an answer under the fault "slow"


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Everything a demonstration cluster needs to know.

    ``root``: its folder; homes, spool, history, host key and commands live there. ``port`` 0 picks a free one.
    ``user_ca_public_key``: file with the public key whose user certificates are trusted, or ``None``.
    ``simulate``: a job is only a timer that runs to its walltime or its cancellation; no process is started.
    """

    root: Path
    address: str = "127.0.0.1"
    port: int = 2222
    user_ca_public_key: Path | None = None
    accounts: tuple[Account, ...] = DEFAULT_ACCOUNTS
    nodes: tuple[Node, ...] = DEFAULT_NODES
    queues: tuple[QueueDefinition, ...] = DEFAULT_QUEUES
    delays: Delays = field(default_factory=Delays)
    simulate: bool = False

    def account(self, name: str) -> Account | None:
        """The account called ``name``."""
        return next((account for account in self.accounts if account.name == name), None)

    def user_ids(self) -> Mapping[str, int]:
        """A number for each account. All of them share one uid here; ``id`` on the login host tells these."""
        return {
            account.name: 3000 + index if account.number is None else account.number
            for index, account in enumerate(self.accounts)
        }

    def queue(self, name: str) -> QueueDefinition | None:
        """The queue called ``name``."""
        return next((queue for queue in self.queues if queue.name == name), None)

    def home(self, name: str) -> Path:
        """The home folder of the account called ``name``."""
        return self.root / "home" / name

    @property
    def default_queue(self) -> str:
        """The queue of a job that names none."""
        return self.queues[0].name

    @property
    def commands_folder(self) -> Path:
        """Where qsub and friends live: on nobody's PATH over SSH, as on a stock site."""
        return self.root / "pbs" / "bin"

    @property
    def login_programs(self) -> Path:
        """What stands before the machine's own programs on the login host's PATH."""
        return self.root / "login-bin"

    @property
    def image_folder(self) -> Path:
        """The library of container images."""
        return self.root / "images"

    def group_ids(self) -> Mapping[str, int]:
        """A number for each group, for listings."""
        names = dict.fromkeys(group for account in self.accounts for group in account.groups)
        return {name: 2000 + index for index, name in enumerate(names)}
