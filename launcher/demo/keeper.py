"""Keeps one process of the demo: starts it, and leaves nothing of it behind, however it or the demo ends.

Run by path with ``python -IS``, so it imports the standard library only. The keeper is the parent of its
process and, on Linux, the one to whom orphans below it are handed; when the supervisor dies, even by
SIGKILL, the kernel tells the keeper, which stops its process and then everything below. If the keeper is
killed, its process is killed with it.

    python -IS keeper.py SUPERVISOR_PID GRACE_SECONDS COMMAND…
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2): the signal this process gets when its parent dies
PR_SET_CHILD_SUBREAPER = 36  # prctl(2): orphans below this process become its children
STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
LOOK_AGAIN_SECONDS = 1.0  # signals come at once; this is for systems without PR_SET_PDEATHSIG
SWEEP_SECONDS = 1.0
"""How long stragglers have after SIGTERM before they are killed."""


def prctl(option: int, value: int) -> None:
    """Call prctl(2) where there is one; elsewhere the keeper's own look at its parent has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def descendants(root: int) -> set[int]:
    """Every living process below ``root``, from /proc; nothing where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.add(child)
            waiting.append(child)
    return found


def send(pids: set[int], number: int) -> None:
    """Signal each process that still is."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue


def reap(main: int) -> int | None:
    """Collect every child that has ended. The exit code of ``main`` when it is among them."""
    code: int | None = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == main:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended


def sweep() -> None:
    """End whatever is left below this process: politely, then not."""
    send(descendants(os.getpid()), signal.SIGTERM)
    deadline = time.monotonic() + SWEEP_SECONDS
    while left := descendants(os.getpid()):
        if time.monotonic() > deadline:
            send(left, signal.SIGKILL)
        reap(0)
        time.sleep(0.02)
    reap(0)


def start(command: list[str]) -> int:
    """Start the command in a session of its own; it dies with the keeper. Returns its process id."""
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(command[0], command)  # noqa: S606  # the supervisor's own list of arguments
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127)


def keep(supervisor: int, grace_seconds: float, command: list[str]) -> int:
    """Run ``command`` until it ends or the supervisor wants it to end. Returns its exit code."""
    # blocked signals wait for sigtimedwait, so none can slip in between a look and the sleep that follows it
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS | {signal.SIGCHLD})
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != supervisor:
        return 1
    main = start(command)
    kill_at: float | None = None
    while (code := reap(main)) is None:
        patience = LOOK_AGAIN_SECONDS if kill_at is None else max(0.0, kill_at - time.monotonic())
        news = signal.sigtimedwait(STOPS | {signal.SIGCHLD}, patience)
        if kill_at is None and (os.getppid() != supervisor or (news and news.si_signo in STOPS)):
            kill_at = time.monotonic() + grace_seconds
            send({main}, signal.SIGTERM)
        elif kill_at is not None and time.monotonic() >= kill_at:
            send({main}, signal.SIGKILL)
            kill_at = time.monotonic() + 1
    sweep()
    return code


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
