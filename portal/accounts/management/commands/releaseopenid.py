"""``manage.py releaseopenid``: let somebody else at the OpenID provider sign in as an account."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext

from portal.accounts.openid_flow import release


class Command(BaseCommand):
    help = "Forget who an account is at the OpenID provider; the next to sign in as it is remembered instead."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", help="the account on the cluster")

    def handle(self, *args: Any, **options: Any) -> None:
        if not release(username=options["username"], actor="command line"):
            raise CommandError(
                gettext("%(username)s has not signed in by OpenID Connect.") % {"username": options["username"]}
            )
        self.stdout.write(gettext("Forgotten. The next sign-in is remembered."))
