"""A worker process that submits or extends a session, or polls its cluster, and dies by SIGKILL on the way: no goodbye.

    python -m tests.integration.crashing_worker POINT SESSION_ID

Run by ``test_crashes`` with the test's settings in the environment. The points are put around the product's functions
here, in this process; the product knows nothing of them.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import django

EXTENDING = ("wished", "understood_extension", "before_extended")
"""Points on the way to an extension."""


def die(*_arguments: object) -> None:
    """The power goes off."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(owner: Any, name: str, *, only: Callable[..., bool] = lambda *_a, **_k: True) -> None:
    """Let this process end as soon as ``owner.name`` has done its work, for a call that ``only`` picks."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def called(*arguments: Any, **keywords: Any) -> Any:
        result = original(*arguments, **keywords)
        if only(*arguments, **keywords):
            die()
        return result

    @functools.wraps(original)
    async def awaited(*arguments: Any, **keywords: Any) -> Any:
        result = await original(*arguments, **keywords)
        if only(*arguments, **keywords):
            die()
        return result

    setattr(owner, name, awaited if inspect.iscoroutinefunction(original) else called)


def arm(point: str) -> None:
    """Choose where this process ends. ``hung``: nowhere by itself; the test kills it while qsub does not answer."""
    from launcher import dispatch, services
    from launcher.flows import poll_ask
    from launcher.schedulers.pbs import PBS
    from launcher.services import extending, submitting
    from launcher.ssh import commands
    from launcher.ssh.files import RemoteFiles

    def is_qsub(_connection: object, command: Any, **_keywords: object) -> bool:
        return bool(command.argv[0].endswith("/qsub"))

    match point:
        case "claimed":
            die_after(services, "claim_submission")
        case "folder":
            die_after(RemoteFiles, "make_folders")
        case "first_file":
            die_after(RemoteFiles, "replace")
        case "files":
            die_after(PBS, "submit_command")
        case "answer_arrives":
            # the collector takes any command's output, but submit's first command that prints is qsub
            die_after(commands._Collector, "data_received")
        case "answered":
            die_after(commands, "run", only=is_qsub)
        case "understood":
            die_after(PBS, "parse_submit")
        case "adopted":
            die_after(PBS, "parse_find")
        case "before_commit":
            die_after(submitting, "record")
        case "committed":
            die_after(dispatch, "_hurry")
        case "polling":
            die_after(poll_ask, "_status")
        case "wished":
            die_after(services, "ask_extension")
        case "understood_extension":
            die_after(PBS, "parse_extend")
        case "before_extended":
            die_after(extending, "record", only=lambda event, **_keywords: event.NAME == "session.extended")
        case "hung":
            pass
        case _:
            raise SystemExit(f"no point called {point}")


def main() -> None:
    """Submit or poll, and get as far as the point."""
    point, session_id = sys.argv[1:]
    django.setup()
    arm(point)
    from launcher.flows.extend import extend
    from launcher.flows.poll import poll
    from launcher.flows.submit import submit
    from launcher.models import InteractiveSession

    if point == "polling":
        poll("demo")
    if point in EXTENDING:
        session = InteractiveSession.objects.select_related("owner").get(pk=session_id)
        assert session.owner is not None
        extend(session=session, user=session.owner, address="")
    submit(session_id)


if __name__ == "__main__":
    main()
