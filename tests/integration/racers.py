"""Processes that do things at the same moment, on the test's database: children of this one, which has Django ready.

    python -m tests.integration.racers

Reads a race from each line: a JSON list of orders, each a list of a name below and its arguments, one process for each.
They begin together, once all have a connection. Answers with a line: a JSON list, in the same order,
of what came out and what went wrong.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import django

django.setup()

from django.db import connection, transaction

from launcher import grants, leaving, parts, services
from launcher.catalog import LaunchChoices
from launcher.models import InteractiveSession
from launcher.services import LaunchRefused
from launcher.states import EndReason
from portal.accounts.models import User, WebSession
from portal.audit import events
from portal.audit.services import record
from tests.integration.proxy_peers import ENTRY, NONCE

CHOICES = LaunchChoices(cores=1, memory_mib=1024, walltime_seconds=3600, queue="workq")
WAIT_SECONDS = 60


def launch(username: str) -> str:
    """Launch a session of jupyter; ``launched``, or why not."""
    try:
        services.create_session(
            owner=User.objects.get(username=username),
            app=parts.apps()["jupyter"],
            cluster=parts.clusters()["demo"],
            choices=CHOICES,
            address="",
        )
    except LaunchRefused as refusal:
        return refusal.code
    return "launched"


def claim(session_id: str) -> str:
    """Claim the submission; the claim's mark, or nothing."""
    claimed = services.claim_submission(session_id)
    return claimed.mark if claimed is not None else ""


def write(number: int) -> str:
    """Record so many events, each in a transaction of its own."""
    for each in range(number):
        with transaction.atomic():
            record(events.SessionSubmitted(job_id=f"{os.getpid()}-{each}"), actor="alice")
    return "written"


def stop(session_id: str, username: str) -> str:
    """Ask for the session's end."""
    session = InteractiveSession.objects.get(pk=session_id)
    services.request_stop(session=session, actor=User.objects.get(username=username), address="")
    return "asked"


def connect(session_id: str, username: str, address: str) -> str:
    """A page that opens the session asks the portal for a code."""
    grants.create_entry_code(
        session=InteractiveSession.objects.get(pk=session_id),
        user=User.objects.get(username=username),
        web_session_key="a browser",
        entry=ENTRY,
        address=address,
    )
    return "connected"


def ready(session_id: str) -> str:
    """The session's server answered."""
    services.record_ready(session_id)
    return "told"


def end(session_id: str) -> str:
    """The session's job is gone."""
    services.end_session(session_id, reason=EndReason.WALLTIME, code="ended.walltime", params={})
    return "ended"


def enter(label: str, code: str) -> str:
    """Redeem an entry code; the cookie's value, or nothing."""
    issued = grants.redeem_entry_code(label=label, code=code, nonce=NONCE)
    return issued.cookie_value if issued is not None else ""


def sign_out(username: str) -> str:
    """Sign this person out, wherever they are."""
    user = User.objects.get(username=username)
    leaving.sign_out_everywhere(user=user, with_tokens=True, address="")
    return "out"


def sign_out_one(username: str, pk: int) -> str:
    """Sign one browser out."""
    user = User.objects.get(username=username)
    leaving.sign_out(user=user, here=WebSession.objects.filter(pk=pk).first(), address="")
    return "out"


def visit(username: str, session_id: str) -> str:
    """Open somebody's session, where that is possible."""
    try:
        services.open_as_user(
            session=InteractiveSession.objects.get(pk=session_id),
            actor=User.objects.get(username=username),
            reason="to see what is wrong",
            address="",
        )
    except services.VisitRefused as refusal:
        return refusal.code
    return "open"


ORDERS: dict[str, Callable[..., str]] = {
    each.__name__: each
    for each in (launch, claim, write, stop, connect, ready, end, enter, sign_out, sign_out_one, visit)
}


def _run(order: list[object], together: Barrier, answer: Connection) -> None:
    name, *arguments = order
    try:
        connection.ensure_connection()
        together.wait(WAIT_SECONDS)
        answer.send((ORDERS[str(name)](*arguments), ""))
    except Exception as error:  # the test says it
        answer.send(("", f"{name}: {error!r}"))
    finally:
        connection.close()
        os._exit(0)  # as if killed: what a child has of its parent's is not the child's to tidy up


def race(orders: list[list[object]]) -> list[tuple[str, str]]:
    """What came out of each, and what went wrong."""
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(len(orders))
    running = []
    for order in orders:
        here, there = fork.Pipe(duplex=False)
        child = fork.Process(target=_run, args=(order, together, there))
        child.start()
        there.close()
        running.append((child, here))
    found = []
    for child, here in running:
        found.append(here.recv() if here.poll(WAIT_SECONDS) else ("", "no answer"))
        child.kill()
        child.join()
    return found


def main() -> None:
    """One race for each line."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(race(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
