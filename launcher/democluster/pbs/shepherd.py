"""Runs one job and lets none of its processes survive it. A program of its own, standard library only.

Started as ``python -I -S shepherd.py SERVER_PID``. The first line of its stdin is the job as JSON; later
lines are orders: ``term`` (ask the job's processes to stop), ``kill``, ``say TEXT`` (a line on the job's
stderr). It reports on stdout, a JSON line when the job's processes begin and one when all have ended.

The end of stdin, SIGTERM, SIGINT, SIGHUP or the death of the server kills the whole tree. Processes that
left the session with setsid are found all the same, because the kernel hands orphans to a subreaper.
"""

# Starts with every job or cluster: only small modules; a job is an exec.
# ruff: noqa: PTH119, PTH123, PTH208, S606, SIM105
from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05
_LARGEST_LINE_BYTES = 1 << 24


def _descendants() -> list[int]:
    """Every process below this one, from the kernel's own table."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] != b"Z":
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, waiting = [], [os.getpid()]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found.append(child)
            waiting.append(child)
    return found


def _signal_all(number: int) -> bool:
    """Signal every descendant, parents first. Whether there was any."""
    pids = _descendants()
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass  # it has just ended
    return bool(pids)


def _kill_tree() -> None:
    """Kill until nothing is left; a process may fork while we look."""
    while _signal_all(signal.SIGKILL):
        _reap()
        time.sleep(0.005)
    _reap()


def _reap() -> dict[int, tuple[int, Any]]:
    """Ended children with their wait status and usage."""
    ended: dict[int, tuple[int, Any]] = {}
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = (status, usage)


def _report(values: dict[str, Any]) -> None:
    try:
        os.write(1, json.dumps(values).encode() + b"\n")
    except OSError:
        pass  # the server is gone; what it left is being killed


def _run_job(job: dict[str, Any], stdout: int, stderr: int) -> NoReturn:
    """Become the job's login shell, which reads the script's path from its stdin, as pbs_mom arranges it."""
    try:
        os.setsid()
        os.umask(int(job["umask"]))
        os.chdir(job["folder"])
        read_end, write_end = os.pipe()
        os.write(write_end, os.fsencode(job["command"]) + b"\n")
        os.close(write_end)
        for source, target in ((read_end, 0), (stdout, 1), (stderr, 2)):
            os.dup2(source, target)
        os.closerange(3, 256)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        shell = job["shell"]
        os.execve(shell, ["-" + os.path.basename(shell)], job["environment"])
    except BaseException as error:  # whatever it was, this child must not go on as a second shepherd
        os.write(2, f"{error}\n".encode())
    os._exit(254)  # PBS: the shell could not be started


class _Orders:
    """Lines from stdin as they come."""

    def __init__(self) -> None:
        self.buffer = b""
        self.ended = False

    def read(self) -> list[bytes]:
        chunk = os.read(0, 65536)
        self.ended = not chunk
        *lines, self.buffer = (self.buffer + chunk).split(b"\n")
        return lines


def _main() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    stop = {"now": False}

    def end(_number: int, _frame: object) -> None:
        stop["now"] = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    if os.getppid() != int(sys.argv[1]):
        return 1  # the server died before we could ask to be told
    first = sys.stdin.buffer.readline(_LARGEST_LINE_BYTES)
    if not first:
        return 1
    job = json.loads(first)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        stdout = os.open(job["stdout"], flags, 0o600)
        stderr = stdout if job["stderr"] == job["stdout"] else os.open(job["stderr"], flags, 0o600)
    except OSError as error:
        _report({"failed": str(error)})
        return 1
    child = os.fork()
    if child == 0:
        _run_job(job, stdout, stderr)
    _report({"session": child})
    status = _watch(child, stderr, stop, wake_read)
    _kill_tree()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 256 + os.WTERMSIG(status)
    _report({"exit": code, "cpu_seconds": usage.ru_utime + usage.ru_stime, "memory_kib": usage.ru_maxrss})
    return 0


def _watch(child: int, stderr: int, stop: dict[str, bool], wake: int) -> int:
    """Follow orders until the job's shell has ended. Its wait status."""
    orders = _Orders()
    terminating = False
    status: int | None = None
    while True:
        for pid, (ended_status, _usage) in _reap().items():
            if pid == child:
                status = ended_status
        # After qdel a job lasts until its last process has obeyed, not only its shell.
        if status is not None and not (terminating and _descendants()):
            return status
        if stop["now"] or orders.ended:
            _kill_tree()
            return status if status is not None else signal.SIGKILL
        ready = select.select([0, wake], [], [], _POLL_SECONDS if terminating else None)[0]
        if wake in ready:
            try:
                os.read(wake, 4096)
            except BlockingIOError:
                pass
        for line in orders.read() if 0 in ready else ():
            if line == b"term":
                terminating = True
                _signal_all(signal.SIGTERM)
            elif line == b"kill":
                _signal_all(signal.SIGKILL)
            elif line.startswith(b"say "):
                os.write(stderr, line[4:] + b"\n")


if __name__ == "__main__":
    sys.exit(_main())
