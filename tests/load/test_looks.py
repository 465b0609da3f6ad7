"""What it costs to look whether somebody works in a session: real Jupyter, real SSH."""

from __future__ import annotations

import time

import pytest

from launcher import parts
from launcher.activity import unused_seconds
from launcher.flows.activity import ask_jupyter
from launcher.flows.launch import launch
from launcher.parts import hands, hands_loop
from launcher.selectors import target_of
from launcher.states import SessionState
from portal.accounts.models import User
from tests.conftest import RunningCluster
from tests.story import drive

LOOKS = 50
MOST_CPU_SECONDS = 0.1
"""Of one look. The SSH server runs in this process, too, and is counted."""

pytestmark = [pytest.mark.load, pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]


@pytest.mark.parametrize("connection", ["kept", "new each time"])
def test_a_look_is_cheap(demo_cluster: RunningCluster, alice: User, connection: str) -> None:
    raw: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1"}
    session = drive(launch(user=alice, app_id="jupyter", raw=raw, address=""), SessionState.READY)
    target = target_of(session)
    assert target is not None
    hands_loop().run(ask_jupyter(target), 60)
    begun, cpu = time.monotonic(), time.process_time()
    for _ in range(LOOKS):
        if connection != "kept":
            hands_loop().run(hands().pool.aclose(), 60)
            parts.hands.cache_clear()
        assert unused_seconds(hands_loop().run(ask_jupyter(target), 60)) >= 0
    seconds, cpu_seconds = (time.monotonic() - begun) / LOOKS, (time.process_time() - cpu) / LOOKS
    print(f"\na look, connection {connection}: {1000 * cpu_seconds:.1f} ms CPU, {1000 * seconds:.1f} ms")  # noqa: T201  # the figures
    assert cpu_seconds < MOST_CPU_SECONDS
