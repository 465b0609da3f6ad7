"""Several processes do the same thing, or opposite things, at the same moment: on one database, one of them is first.

Each race is run several times, since the order is the machine's to choose; what must hold, holds in any.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import pytest_django

from launcher import parts, selectors, services
from launcher.catalog import LaunchChoices
from launcher.connection import Connection
from launcher.models import AccessGrant, InteractiveSession, SupportVisit
from launcher.proxy.access_types import Verdict
from launcher.states import EndReason, SessionState
from portal.accounts.models import User, WebSession
from portal.accounts.tokens import create_token
from portal.addresses import network_of
from portal.audit.models import AuditEvent
from portal.audit.selectors import verify
from portal.conf import PROJECT
from tests.entering import code_of
from tests.integration.test_crashes import worker_environment
from tests.story import events_of, signed_in

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration, pytest.mark.usefixtures("demo_cluster")]

AT_ONCE = 8
TIMES = 3
EVENTS = 50
CHOICES = LaunchChoices(cores=1, memory_mib=1024, walltime_seconds=3600, queue="workq")

ALL_WELL = {"open", "visit.not_allowed", "out", "told", "asked", "ended", "launch.limit_reached", "written"}

Race = Callable[..., list[str]]


@pytest.fixture(scope="module")
def race(django_db_setup: None, django_db_blocker: pytest_django.DjangoDbBlocker) -> Iterator[Race]:
    """Runs orders of ``racers``, one process each; what came out, in the same order. Nothing may go wrong."""
    with django_db_blocker.unblock():
        environment = worker_environment() | {"PORTAL_OPEN_AS_USER": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.racers"],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to_it, from_it = process.stdin, process.stdout

        def run(*orders: list[object]) -> list[str]:
            to_it.write(json.dumps(orders) + "\n")
            to_it.flush()
            found: list[tuple[str, str]] = json.loads(from_it.readline())
            assert [wrong for _, wrong in found if wrong] == []
            return [outcome for outcome, _ in found]

        yield run
        to_it.close()
        process.wait(60)


def launched(owner: User) -> InteractiveSession:
    """A session nobody has submitted yet."""
    return services.create_session(
        owner=owner, app=parts.apps()["jupyter"], cluster=parts.clusters()["demo"], choices=CHOICES, address=""
    )


def over(session: InteractiveSession) -> None:
    """The session ends, so that its owner may have another."""
    services.end_session(session.pk, reason=EndReason.WALLTIME, code="ended.walltime", params={})


def starting(owner: User, number: int) -> InteractiveSession:
    """A session whose job runs and whose server has said where it listens."""
    session = launched(owner)
    claim = services.claim_submission(session.pk)
    assert claim is not None
    services.record_submitted(claim, job_id=f"{number}.pbs", folder="/home/alice/s", adopted=False)
    InteractiveSession.objects.filter(pk=session.pk).update(state=SessionState.STARTING)
    where = Connection(host="node1", port=9000, base_url="/", flavor="identity", server="jupyter_server 2")
    services.record_server(session.pk, where)
    session.refresh_from_db()
    return session


def test_of_launches_at_once_as_many_win_as_the_limit_allows(race: Race, alice: User) -> None:
    for _ in range(TIMES):
        found = race(*[["launch", "alice"]] * AT_ONCE)
        assert Counter(found) == {"launched": 1, "launch.limit_reached": AT_ONCE - 1}
        over(selectors.live_sessions(alice).get())
    assert AuditEvent.objects.filter(name="session.launched").count() == TIMES
    assert verify().broken is None


def test_of_workers_at_once_one_gets_the_submission(race: Race, alice: User) -> None:
    for _ in range(TIMES):
        session = launched(alice)
        marks = race(*[["claim", session.pk]] * AT_ONCE)
        session.refresh_from_db()
        assert sorted(marks) == [""] * (AT_ONCE - 1) + [session.claim]
        assert session.submit_attempts == 1
        over(session)


def test_processes_at_once_write_one_whole_chain(race: Race) -> None:
    assert race(*[["write", EVENTS]] * AT_ONCE) == ["written"] * AT_ONCE
    result = verify()
    assert (result.tip.count, result.broken) == (AT_ONCE * EVENTS, None)
    jobs = {event.data["job_id"] for event in AuditEvent.objects.all()}
    assert len(jobs) == AT_ONCE * EVENTS


def test_a_session_that_gets_ready_while_it_is_stopped_stays_stopped(race: Race, alice: User) -> None:
    for number in range(TIMES):
        session = starting(alice, number)
        orders = [["stop", session.pk, "alice"], ["ready", session.pk]]
        assert race(*orders, *orders) == ["asked", "told"] * 2
        session.refresh_from_db()
        assert session.state == SessionState.STOPPING
        assert events_of(session).count("session.stop_requested") == 1
        assert events_of(session).count("session.ready") <= 1
        over(session)
    assert verify().broken is None


def test_whoever_signs_out_while_entering_is_left_outside(race: Race, alice: User) -> None:
    session = starting(alice, 1)
    services.record_ready(session.pk)
    for _ in range(2 * TIMES):
        key = signed_in(alice)
        code = code_of(session, alice, web_session_key=key)
        browser = WebSession.objects.get()
        cookie, out = race(["enter", session.host_label, code], ["sign_out_one", "alice", browser.pk])
        assert out == "out"
        verdict = selectors.open_target(label=session.host_label, cookie_value=cookie).verdict
        assert verdict is Verdict.SIGN_IN, cookie
        assert not AccessGrant.objects.filter(revoked_at=None).exists()


def test_one_code_opens_one_door(race: Race, alice: User) -> None:
    session = starting(alice, 1)
    services.record_ready(session.pk)
    key = signed_in(alice)
    for _ in range(TIMES):
        code = code_of(session, alice, web_session_key=key)
        cookies = race(*[["enter", session.host_label, code]] * AT_ONCE)
        assert Counter(map(bool, cookies)) == {False: AT_ONCE - 1, True: 1}


def test_opening_a_session_at_once_is_noted_once_of_each_network(race: Race, alice: User) -> None:
    for number in range(TIMES):
        session = starting(alice, number)
        services.record_ready(session.pk)
        addresses = ["192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.1"] * (AT_ONCE // 4)
        assert set(race(*[["connect", session.pk, "alice", address] for address in addresses])) == {"connected"}
        noted = AuditEvent.objects.filter(name="session.connected", session_id=session.pk)
        assert sorted(network_of(event.address) for event in noted) == ["192.0.2.1", "2001:db8::/64"]
        over(session)


def test_all_of_it_at_once_ends_well(race: Race, alice: User, bob: User, admin: User) -> None:
    """Nobody waits for somebody who waits for them, and every fact stands in the chain."""
    for number in range(TIMES):
        first, second = starting(alice, 2 * number), starting(bob, 2 * number + 1)
        services.record_ready(first.pk)
        create_token(user=admin, name="test", scope="read", days=1)
        code = code_of(first, alice)
        signed_in(admin)
        _, *answers = race(
            ["enter", first.host_label, code],
            ["visit", "admin", first.pk],
            ["visit", "admin", second.pk],
            ["sign_out", "admin"],
            ["sign_out", "alice"],
            ["ready", second.pk],
            ["stop", second.pk, "admin"],
            ["end", first.pk],
            ["launch", "bob"],
            ["write", 5],
        )
        assert set(answers) <= ALL_WELL
        over(second)
        live = AccessGrant.objects.filter(user=alice, revoked_at=None).exclude(session__state=SessionState.ENDED)
        assert not live.exists()
        assert not SupportVisit.objects.filter(session=first, ended_at=None).exists()
    assert verify().broken is None
