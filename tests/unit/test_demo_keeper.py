"""The keeper of one process: whatever ends, nothing below it is left. Real processes, some of which misbehave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.demo import keeper
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs prctl(2) and /proc")


class Tree:
    """A keeper started by a parent of its own, so that the parent can be killed."""

    def __init__(self, mark: Path, script: str, grace_seconds: float = 1.0) -> None:
        self.mark = mark
        code = (
            "import os, subprocess, sys, time\n"
            "keeper = subprocess.Popen([sys.executable, '-IS', sys.argv[1], str(os.getpid()), *sys.argv[2:]])\n"
            "sys.exit(keeper.wait())\n"
        )
        self.parent = subprocess.Popen(
            [sys.executable, "-c", code, keeper.__file__, str(grace_seconds), "sh", "-c", script],
            env=os.environ | {"KEEPER_TEST": str(mark)},
        )

    def processes(self) -> dict[int, str]:
        """Everything of this tree that lives, by its environment: command lines by process id."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"KEEPER_TEST={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def wait_until_running(self, words: str) -> None:
        """Until a process of the tree has ``words`` for its command line."""
        wait_for(lambda: words in (line.strip() for line in self.processes().values()), seconds=10, what=words)

    def keeper_pid(self) -> int:
        """The keeper itself."""
        return next(pid for pid, line in self.processes().items() if " -IS " in line)

    def wait_until_empty(self) -> None:
        """Until nothing is left."""
        wait_for(lambda: not self.processes(), seconds=10, what="an empty tree")


Plant = Callable[..., Tree]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    """Makes trees; ends what a failed test leaves."""
    made: list[Tree] = []

    def make(script: str, grace_seconds: float = 1.0) -> Tree:
        made.append(Tree(tmp_path, script, grace_seconds))
        return made[-1]

    yield make
    for one in made:
        for pid in one.processes():
            os.kill(pid, signal.SIGKILL)
        one.parent.wait(60)


ORPHANS = "(setsid sleep 1001 &) ; (setsid sh -c 'trap \"\" TERM; sleep 1002; sleep 1003' &) ; "


def test_the_exit_code_of_the_process_is_the_keepers(plant: Plant) -> None:
    assert plant("exit 7").parent.wait(60) == 7


def test_a_signal_that_ended_the_process_shows_in_the_exit_code(plant: Plant) -> None:
    assert plant("kill -9 $$").parent.wait(60) == 128 + 9


def test_a_command_that_does_not_exist_is_told_as_a_shell_tells_it(capfd: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([sys.executable, "-IS", keeper.__file__, str(os.getpid()), "1", "/no/such"], check=False)
    assert done.returncode == 127
    assert "/no/such: No such file or directory" in capfd.readouterr().err


def test_orphans_are_swept_when_the_process_ends(plant: Plant) -> None:
    one = plant(ORPHANS + "sleep 0.2")
    assert one.parent.wait(60) == 0
    assert not one.processes()


def test_asking_the_keeper_ends_a_process_that_ignores_the_question(plant: Plant) -> None:
    one = plant("trap '' TERM; sleep 1004; sleep 1005", 0.3)
    one.wait_until_running("sleep 1004")
    os.kill(one.keeper_pid(), signal.SIGTERM)
    assert one.parent.wait(60) == 128 + signal.SIGKILL
    assert not one.processes()


def test_nothing_is_left_when_the_supervisor_is_killed(plant: Plant) -> None:
    one = plant(ORPHANS + "sleep 1006")
    one.wait_until_running("sleep 1006")
    one.parent.kill()
    one.parent.wait(60)
    one.wait_until_empty()


def test_the_process_dies_with_its_keeper(plant: Plant) -> None:
    one = plant("exec sleep 1007")
    one.wait_until_running("sleep 1007")
    os.kill(one.keeper_pid(), signal.SIGKILL)
    one.parent.wait(60)
    one.wait_until_empty()


def test_a_keeper_whose_supervisor_is_already_gone_starts_nothing(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    done = subprocess.run(
        [sys.executable, "-IS", keeper.__file__, "1", "1", "touch", str(witness)], check=False, timeout=60
    )
    assert done.returncode == 1
    assert not witness.exists()
