"""What a real PBS lets an operator do for its users, and does not let the users do themselves."""

from __future__ import annotations

import datetime as dt

import pytest

from launcher import parts, services
from launcher.flows.extend import extend
from launcher.models import InteractiveSession
from launcher.states import SessionState
from portal.accounts.models import User
from tests.live.site import LiveSite
from tests.live.test_main_job import launched, until
from tests.settings import FOLDER
from tests.story import events_of, one_round

EXTEND_HOURS = 0.2


@pytest.fixture
def operator(live: LiveSite) -> str:
    """The operator's account, where there is one."""
    if not live.operator:
        pytest.skip("FOOTBRIDGE_LIVE_OPERATOR is not set")
    return live.operator


def ready_with(live: LiveSite, user: User, operator: str) -> InteractiveSession:
    """A ready session on the cluster, whose clusters file names this operator."""
    text = live.toml(operator=operator, extend_times=1, extend_hours=EXTEND_HOURS)
    (FOLDER / "clusters.toml").write_text(text, encoding="utf-8")
    parts.forget()
    return until(launched(live, user), SessionState.READY)


def test_the_operator_sees_everybodys_jobs_and_the_session_ends_as_asked(
    live: LiveSite, user: User, operator: str
) -> None:
    session = ready_with(live, user, operator)
    services.request_stop(session=session, actor=user, address="192.0.2.1")
    until(session, SessionState.ENDED)
    assert session.end_reason == "stopped_by_user"


def test_the_operator_lengthens_a_running_job(live: LiveSite, user: User, operator: str) -> None:
    session = ready_with(live, user, operator)
    before = session.walltime_ends_at
    assert before is not None
    extend(session=session, user=user, address="192.0.2.1")
    one_round(session)
    assert (session.extensions, session.extending_to_seconds) == (1, None)
    assert session.walltime_ends_at == before + dt.timedelta(hours=EXTEND_HOURS)
    assert events_of(session)[-2:] == ["session.extension_requested", "session.extended"]


def test_an_account_without_an_operators_rights_lengthens_nothing(live: LiveSite, user: User) -> None:
    session = ready_with(live, user, user.username)  # one's own account: nobody may lengthen their own job
    before = session.walltime_ends_at
    extend(session=session, user=user, address="192.0.2.1")
    one_round(session)
    assert (session.extensions, session.walltime_ends_at) == (0, before)
    assert session.extension_refused == "scheduler.not_permitted"
    assert events_of(session)[-1] == "session.extension_refused"
