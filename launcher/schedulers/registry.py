"""Which adapter speaks for which scheduler of the clusters file. Pure. A new scheduler is one file and one
line here.
"""

from __future__ import annotations

from launcher.schedulers.base import Scheduler
from launcher.schedulers.pbs import PBS
from launcher.schedulers.slurm import Slurm
from launcher.schedulers.torque import Torque

_ADAPTERS: dict[str, type[Scheduler]] = {"pbs": PBS, "torque": Torque, "slurm": Slurm}


def adapter(name: str, commands_folder: str = "") -> Scheduler:
    """The adapter called ``name``. Raises KeyError, which the check of the clusters file makes impossible."""
    return _ADAPTERS[name](commands_folder)
