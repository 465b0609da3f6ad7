"""``manage.py verifyaudit``: walks the whole audit chain and says whether anything was changed behind the
portal's back.

Exits 0 when all is right and 1 with the first broken row otherwise. Safe while the portal runs.
"""

from __future__ import annotations

import argparse
import re
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.audit import selectors, services
from portal.audit.chain import Flaw, Tip

SENTENCES = {
    Flaw.EDITED: _("Row %(row)d was changed: its contents do not give its hash."),
    Flaw.MISSING: _("Row %(row)d is missing."),
    Flaw.MISPLACED: _("Row %(row)d does not follow the row before it: one of the two was changed or put in."),
    Flaw.EXTRA: _("Row %(row)d was put in: the portal did not record it."),
    Flaw.HEAD: _("The note of the log's end does not fit row %(row)d: one of them was changed or deleted."),
    Flaw.SEAL: _(
        "The note of the log's end (row %(row)d) was not sealed by this portal: it was changed in the "
        "database, or PORTAL_SECRET_KEY is another one now."
    ),
    Flaw.REPORTED: _(
        "Row %(row)d is the portal's own note that it found the end of the log changed. When you know why, "
        "leave it out with --known %(row)d."
    ),
    Flaw.UNEXPECTED: _("Row %(row)d is not the one you kept: the log was replaced by another."),
}


def kept_end(text: str) -> Tip:
    """``COUNT:HASH``, as this command prints it."""
    if not re.fullmatch(r"[0-9]{1,18}:[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(gettext("must look like 1234:<64 hexadecimal digits>"))
    count, digest = text.split(":")
    return Tip(int(count), digest)


class Command(BaseCommand):
    help = "Check the audit log. Names the first edited, missing or inserted row and exits 1 then."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--expect",
            type=kept_end,
            metavar="COUNT:HASH",
            help="an end of the log that an earlier check printed and that must still be part of it",
        )
        parser.add_argument(
            "--known",
            type=int,
            action="append",
            default=[],
            metavar="ROW",
            help="an audit.chain_broken row that somebody has looked into; may be repeated",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.monotonic()
        result = selectors.verify(expect=options["expect"], known=frozenset(options["known"]))
        services.note_verification(result)
        if result.broken:
            self.stderr.write(str(SENTENCES[result.broken.flaw]) % {"row": result.broken.sequence})
            raise SystemExit(1)
        self.stdout.write(
            gettext("The audit log is whole: %(count)d rows, checked in %(seconds).1f s.")
            % {"count": result.tip.count, "seconds": time.monotonic() - started}
        )
        self.stdout.write(f"{result.tip.count}:{result.tip.hash}")
