"""``manage.py createtoken``: a personal token for somebody, printed once on standard output."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext, ngettext

from portal.accounts.models import TokenScope, User
from portal.accounts.tokens import MOST_DAYS, TokenError, create_token


class Command(BaseCommand):
    help = "Make a personal token for the API. It is printed once and cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", help="the account on the cluster; it must have signed in before")
        parser.add_argument("--name", default="command line", help="what the token is for")
        parser.add_argument("--scope", choices=TokenScope.values, default=TokenScope.READ.value)
        parser.add_argument("--days", type=int, default=30, help=f"how long it is valid, 1 to {MOST_DAYS}")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"], is_active=True).first()
        if user is None:
            raise CommandError(
                gettext("%(username)s has never signed in, or may not.") % {"username": options["username"]}
            )
        try:
            made = create_token(user=user, name=options["name"], scope=options["scope"], days=options["days"])
        except TokenError as refused:
            raise CommandError(_sentence(refused)) from refused
        self.stderr.write(
            ngettext(
                "Valid for %(days)d day. Keep it like a password:",
                "Valid for %(days)d days. Keep it like a password:",
                options["days"],
            )
            % {"days": options["days"]}
        )
        self.stdout.write(made.text)


def _sentence(refused: TokenError) -> str:
    sentences = {
        "token.name": gettext("The name must have 1 to 80 printable characters."),
        "token.days": gettext("A token is valid for 1 to %(most)s days."),
        "token.too_many": gettext("This person has %(most)s tokens already. Revoke one first."),
    }
    return sentences[refused.code] % refused.params
