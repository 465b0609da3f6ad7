"""``manage.py run web|worker|beat``: becomes one of the portal's processes, with the options the portal is made for."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandParser

from launcher.processes import beat_command, web_command, worker_command


class Command(BaseCommand):
    """Replaces itself by the process, so that a service manager's signals reach it."""

    help = "Run one process of the portal: web (on PORTAL_HOST and PORTAL_PORT), worker, or beat (exactly one)."

    def add_arguments(self, parser: CommandParser) -> None:
        """See BaseCommand."""
        parser.add_argument("process", choices=["web", "worker", "beat"])

    def handle(self, *args: Any, **options: Any) -> None:
        """See BaseCommand."""
        conf = settings.CONF
        commands = {
            "web": web_command(host=conf.host, port=conf.port),
            "worker": worker_command(),
            "beat": beat_command(schedule=conf.data_folder / "beat-schedule"),
        }
        command = commands[options["process"]]
        os.execv(command[0], command)  # noqa: S606  # our own list of arguments
