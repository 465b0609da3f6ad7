#!/usr/bin/env python
"""Administrative commands. ``manage.py demo`` runs the whole portal here; ``manage.py help`` lists the
rest.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command of the command line."""
    if sys.argv[1:2] == ["demo"]:
        # the demo needs no settings, while Django refuses to start without them: the demo's are made first
        from launcher.demo.folder import enter_demo

        enter_demo()
    if sys.argv[1:2] == ["doctor"]:
        # it says what is wrong with settings with which Django does not start
        from launcher.doctor.command import main as doctor

        sys.exit(doctor(sys.argv[2:]))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
