"""Kills what a cluster leaves behind when it dies, however it dies. A program of its own.

Started as ``python -I -S warden.py MARK`` with a pipe from the cluster as stdin. When the pipe ends it kills
every process of this account whose environment says DEMO_CLUSTER=MARK, again and again until there is none.
Jobs have a shepherd each that does better; this catches what runs for people's logins, and shepherds that
were killed themselves.
"""

# Starts with every job or cluster: only small modules; a job is an exec.
# ruff: noqa: PTH123, PTH208
import os
import signal
import sys
import time

_ROUNDS = 200


def _marked(mark: bytes) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:
                continue  # it has ended, or is none of ours
    return found


def main() -> int:
    """Wait, then clean up."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    mark = b"DEMO_CLUSTER=" + os.fsencode(sys.argv[1])
    while os.read(0, 4096):
        pass
    for _ in range(_ROUNDS):
        pids = _marked(mark)
        if not pids:
            return 0
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.01)
    return 1


if __name__ == "__main__":
    sys.exit(main())
