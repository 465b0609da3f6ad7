"""Checks of what carries the notebooks' bytes."""

from __future__ import annotations

import asyncio

from launcher.doctor.findings import Said, doubtful, fine, skipped
from portal.words import marked as _


def fast_path(_portal: object) -> Said:
    """The fast way through SSH works with the asyncssh that is installed."""
    from django.conf import settings

    from launcher.ssh.fastpath_check import find_problem

    if not settings.CONF.ssh_fast_path:
        return skipped(_("PORTAL_SSH_FAST_PATH switches it off."))
    problem = asyncio.run(find_problem())
    if problem:
        return doubtful(
            _("Notebooks work at about half the speed, because the fast way is not used: %(words)s."),
            _("Install the packages that uv.lock names, or wait for a release of the portal that knows this asyncssh."),
            words=problem,
        )
    return fine(_("A trial of it has passed."))
