"""``manage.py demo``: the whole portal with a demonstration cluster, on one machine and in one terminal."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandParser, execute_from_command_line

from launcher.demo.check import check
from launcher.demo.folder import DemoError, DemoFolder, Running
from launcher.demo.keeper import PR_SET_PDEATHSIG, prctl
from launcher.demo.steps import Steps
from launcher.democluster.settings import DEFAULT_ACCOUNTS


class Command(BaseCommand):
    """The demo. Everything it writes lies in the data folder (``var``, or ``PORTAL_DATA_FOLDER``)."""

    help = (
        "Run the portal with a demonstration cluster on this machine until Ctrl-C. Needs no root, no Docker "
        "and no settings. PORTAL_PORT chooses another port than 8000. "
        "`demo -- COMMAND …` runs another management command on the demo's data."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """See BaseCommand."""
        parser.add_argument(
            "--check",
            action="store_true",
            help="do the whole main job once, without a browser, in the running demo or in a throw-away one",
        )
        parser.add_argument(
            "--url", default="", help="with --check: a portal with the demo's accounts, as in containers"
        )
        parser.add_argument(
            "--end-with-parent",
            action="store_true",
            help="stop when the program that started this ends (Linux)",
        )
        parser.add_argument("command", nargs="*", help="after --: another management command and its arguments")

    def handle(self, *args: Any, **options: Any) -> None:
        """See BaseCommand."""
        folder = DemoFolder(settings.CONF.data_folder)
        if options["command"]:
            execute_from_command_line(["manage.py", *options["command"]])
            return
        steps = Steps()
        if options["end_with_parent"]:
            prctl(PR_SET_PDEATHSIG, 15)
        try:
            code = check(folder, steps, url=options["url"]) if options["check"] else _run(folder, steps)
        except DemoError as error:
            sys.exit(f"\n{error}")
        sys.exit(code)


def _run(folder: DemoFolder, steps: Steps) -> int:
    from launcher.demo.supervisor import Supervisor  # not needed by the other ways

    conf = settings.CONF
    steps.say(f"{conf.site_name}: the demo, in {folder.root}")
    with folder.lock():
        return Supervisor(folder=folder, conf=conf, steps=steps).run(
            ready=lambda running: _welcome(steps, folder, running)
        )


def _welcome(steps: Steps, folder: DemoFolder, running: Running) -> None:
    steps.say()
    steps.box(
        [
            f"Open  {running.url}",
            "",
            "account   password",
            *(f"{account.name:<9} {account.password}" for account in DEFAULT_ACCOUNTS),
            "",
            "admin also sees all sessions and the audit log.",
            f"Stop with Ctrl-C. The logs are in {folder.logs}.",
        ]
    )
