"""``manage.py rotatekeys``: seals every secret of the database with the newest encryption key."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from launcher import services


class Command(BaseCommand):
    """The command; see the module."""

    help = "Seal every secret in the database with the first key of PORTAL_ENCRYPTION_KEY_FILES."

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it, and say whether the older keys may go."""
        done = services.reseal_everything()
        self.stdout.write(f"Sealed {done.sealed} secrets with the newest key.")
        if done.unreadable:
            raise CommandError(
                f"{done.unreadable} secrets were sealed with a key that is not named any more. They are lost: "
                "their sessions cannot be opened, and their owners have to sign in again."
            )
        self.stdout.write("The older keys can be taken away once every process has been restarted with the newest one.")
