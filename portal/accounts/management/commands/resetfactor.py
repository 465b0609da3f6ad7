"""``manage.py resetfactor``: takes the second steps of somebody away who lost the phone and the recovery codes."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext, ngettext

from portal.accounts.factors import reset
from portal.accounts.models import User


class Command(BaseCommand):
    help = "Take all second steps and recovery codes of somebody away. Make sure first who is asking."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", help="the account on the cluster")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(gettext("%(username)s has never signed in.") % {"username": options["username"]})
        count = reset(user=user, actor="command line")
        self.stdout.write(
            ngettext("%(count)d second step was taken away.", "%(count)d second steps were taken away.", count)
            % {"count": count}
        )
