"""Whatever somebody types, every command of the demonstration's PBS answers and the scheduler goes on."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.democluster.faults import Faults
from launcher.democluster.pbs.calls import Answer, Call
from launcher.democluster.pbs.scheduler import Scheduler
from launcher.democluster.pbs.service import COMMANDS
from launcher.democluster.settings import DEFAULT_ACCOUNTS, DemoSettings

WORD = st.one_of(
    st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(
        ["-l", "-N", "-v", "-f", "-F", "json", "dsv", "-D", "", "--", "-E", "-x", "-h", "0", "0.demo-pbs", "1[]",
         "select=1:ncpus=1+", "walltime=", "-W", "umask=9", "-a", "2", "-p", "-q", "workq@", "-u", "-S", "\udcff"]
    ),
)  # fmt: skip


async def _answer(command: str, words: list[str], script: bytes) -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        demo = DemoSettings(root=Path(folder), simulate=True)
        scheduler = Scheduler(demo, Faults(), lambda name: {})
        scheduler.start()

        async def stdin() -> bytes:
            return script

        call = Call(command, tuple(words), folder, DEFAULT_ACCOUNTS[0], {"HOME": folder}, stdin)
        try:
            return await asyncio.wait_for(COMMANDS[command](call, scheduler), 5)
        except TimeoutError:
            assert command == "qsub"  # -W block=true waits for the job
            return Answer()
        finally:
            await scheduler.stop()


@pytest.mark.parametrize("command", sorted(COMMANDS))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(words=st.lists(WORD, max_size=6), script=st.binary(max_size=60))
def test_hostile_words_get_an_answer(command: str, words: list[str], script: bytes) -> None:
    answer = asyncio.run(_answer(command, words, script))
    assert 0 <= answer.exit_code < 256
    assert answer.exit_code == 0 or answer.stderr
