"""Fixtures of the live suite.

live      the real cluster that environment variables name; skipped where there is none. What a test leaves is removed
user      the portal's user for the first test account
other     the portal's user for the second one
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import parts
from launcher.models import InteractiveSession
from launcher.schedulers.base import Command, JobRequest
from launcher.states import SessionState
from portal.accounts.models import User
from portal.errors import FootbridgeError
from tests.live.site import LiveSite, live_site, why_not
from tests.settings import FOLDER


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here needs the cluster, and may take as long as a cluster takes."""
    here = Path(__file__).parent
    reason = why_not()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.live)
            item.add_marker(pytest.mark.timeout(600))
            item.add_marker(pytest.mark.django_db(transaction=True))
            item.add_marker(pytest.mark.skipif(bool(reason), reason=reason))


@pytest.fixture(scope="session")
def _site() -> Iterator[LiveSite]:
    """The cluster, with hands that act on it as the test accounts."""
    site = live_site()
    credential = site.credential()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "credential_of", lambda cluster: credential)
        parts.hands.cache_clear()
        yield site
        parts.hands_loop().run(parts.hands().pool.aclose(), 10)
    parts.hands.cache_clear()


@pytest.fixture
def live(_site: LiveSite, transactional_db: None, valkey: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveSite]:
    """The cluster; jobs are sent to the execution host that was named."""
    (FOLDER / "clusters.toml").write_text(_site.toml(), encoding="utf-8")
    parts.forget()
    _send_jobs_to(_site.execution_host, monkeypatch)
    yield _site
    for session in InteractiveSession.objects.all():
        _remove(_site, session)


def _send_jobs_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form has no such field, and without it the scheduler may prefer the login host."""
    scheduler = type(parts.scheduler_of("live"))
    build = scheduler.submit_command

    def steered(self: object, request: JobRequest) -> Command:
        command = build(self, request)  # type: ignore[arg-type]  # the class that is patched
        argv = [_steered(word, host) for word in command.argv]
        assert argv != list(command.argv), f"no place for a host in {argv}"
        return Command(tuple(argv), command.stdin, command.environment)

    monkeypatch.setattr(scheduler, "submit_command", steered)


def _steered(word: str, host: str) -> str:
    """The dialects of PBS, TORQUE and Slurm."""
    if word.startswith("select=1:"):
        return f"{word}:host={host}"
    if word.startswith("nodes=1"):
        return word.replace("nodes=1", f"nodes={host}", 1)
    return f"--nodelist={host}" if word == "--nodes=1" else word


def _remove(site: LiveSite, session: InteractiveSession) -> None:
    """No job and no folder stays behind, whatever the test came to."""
    if session.job_id and session.state != SessionState.ENDED:
        with contextlib.suppress(AssertionError, FootbridgeError):  # it may have ended by itself
            site.run(session.username, "qdel", session.job_id)
    if session.folder:
        with contextlib.suppress(AssertionError, FootbridgeError):
            site.run(session.username, "rm", "-rf", "--", session.folder)


@pytest.fixture
def user(live: LiveSite) -> User:
    """The first account."""
    return User.objects.create(username=live.user, password="!")


@pytest.fixture
def other(live: LiveSite) -> User:
    """The second account."""
    return User.objects.create(username=live.other_user, password="!")
