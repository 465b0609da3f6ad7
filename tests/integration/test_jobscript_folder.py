"""The private folder of a job's sockets, by the job script's own functions: what stays of it, and for how long."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

FUNCTIONS = Path(__file__).resolve().parents[2] / "launcher/jobfiles/functions.sh"

pytestmark = pytest.mark.integration


def run_job(folder: Path, place: str) -> Path:
    """Run a job that listens at ``place``, a field of the connection file. Returns the folder for temporary files."""
    session, temporary = folder / "session", folder / "tmp"
    session.mkdir(exist_ok=True)
    temporary.mkdir(exist_ok=True)
    for name in ("settings.json", "secret", "server_config.py"):
        (session / name).write_text("x")
    script = f"""
session_folder={session}
. {FUNCTIONS}
begin
printf x >"$_runtime_folder/server.sock"
printf '%s' '{{"{place}": "x"}}' >"$session_folder/connection.json"
"""
    subprocess.run(["bash", "-c", script], check=True, timeout=60, env={**os.environ, "TMPDIR": str(temporary)})
    return temporary


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for the paths of sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="job") as folder:  # closed to others by its mode
        yield Path(folder)


def test_a_folder_in_which_the_portal_asked_stays_empty_and_closed(short: Path) -> None:
    (left,) = run_job(short, "socket").glob("fb.*")
    assert not list(left.iterdir())
    assert left.stat().st_mode & 0o777 == 0o700


def test_a_folder_in_which_nobody_asked_goes(short: Path) -> None:
    assert not list(run_job(short, "port").glob("fb.*"))


def test_a_later_job_takes_old_empty_folders_away(short: Path) -> None:
    (old,) = run_job(short, "socket").glob("fb.*")
    recent, full = old.with_name("fb.00000000"), old.with_name("fb.11111111")
    for folder in (recent, full):
        folder.mkdir(0o700)
    (full / "server.sock").touch()
    long_ago = time.time() - 7200
    for folder in (old, full):
        os.utime(folder, (long_ago, long_ago))
    run_job(short, "port")
    assert sorted(recent.parent.glob("fb.*")) == [recent, full]
