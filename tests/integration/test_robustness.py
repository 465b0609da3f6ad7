"""What goes wrong between two steps: killed workers, poisoned sessions, jobs that the cluster moves, lost helpers."""

from __future__ import annotations

import pytest

from launcher.flows.launch import launch
from launcher.flows.poll import poll
from launcher.models import InteractiveSession
from launcher.states import SessionState
from portal.accounts.models import User
from tests.conftest import RunningCluster, wait_for
from tests.story import drive, one_round

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

RAW: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1", "title": "Trial"}


def launched(user: User) -> InteractiveSession:
    return launch(user=user, app_id="jupyter", raw=RAW, address="")


# One bad session and the round of all others


def test_a_secret_that_no_key_opens_holds_up_no_other_session(
    demo_cluster: RunningCluster, alice: User, bob: User
) -> None:
    poisoned, other = launched(alice), launched(bob)
    drive(poisoned, SessionState.STARTING)
    InteractiveSession.objects.filter(pk=poisoned.pk).update(secret_encrypted=b"sealed with a key that is gone")
    drive(other, SessionState.READY)


def test_an_error_about_one_session_leaves_the_others_their_answers(
    demo_cluster: RunningCluster, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher import services

    poisoned, other = launched(alice), launched(bob)
    record_answer = services.record_answer

    def failing(session_id: str, **answer: object) -> InteractiveSession | None:
        if session_id == poisoned.id:
            raise RuntimeError("the database refused a value")
        return record_answer(session_id, **answer)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(services, "record_answer", failing)
    one_round(poisoned)
    drive(other, SessionState.READY)


def test_a_round_that_takes_too_long_keeps_what_it_learned_and_marks_the_rest(
    demo_cluster: RunningCluster, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher.flows import poll as poll_module

    slow, other = launched(alice), launched(bob)
    for session in (slow, other):
        drive(session, SessionState.READY)
    answered = wait_for(lambda: one_round(other).polled_at)
    ask = poll_module._ask_batch

    async def sluggish(cluster: object, account: str, *rest: object) -> None:
        if account == "alice":
            import asyncio

            await asyncio.Event().wait()
        await ask(cluster, account, *rest)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(poll_module, "_ask_batch", sluggish)
    monkeypatch.setattr(poll_module, "ROUND_SECONDS", 1)
    poll("demo")
    slow.refresh_from_db()
    other.refresh_from_db()
    assert slow.unreachable_since is not None
    assert other.unreachable_since is None
    assert other.polled_at > answered
