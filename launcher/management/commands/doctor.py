"""``manage.py doctor``. From manage.py it is run without this file, since Django may not start; see launcher.doctor."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management import BaseCommand, CommandParser

from launcher.doctor.command import HELP, add_arguments, run


class Command(BaseCommand):
    """Checks portal and clusters."""

    help = HELP
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """See BaseCommand."""
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """See BaseCommand."""
        sys.exit(
            run(
                sys.stdout,
                cluster=options["cluster"],
                account=options["account"],
                with_job=options["job"],
                only_portal=options["portal"],
                as_json=options["json"],
            )
        )
