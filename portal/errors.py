"""The root of every error that Footbridge raises on purpose.

    FootbridgeError
    ├── launcher.schedulers.base.SchedulerError    the scheduler refused, or gave no usable answer
    ├── launcher.ssh.errors.SSHError               a login host could not be reached, or refused us
    ├── launcher.catalog.CatalogError              an app's folder is wrong
    ├── launcher.clusters.ClustersError            the clusters file is wrong
    ├── launcher.jobscript.JobScriptError          a job script could not be rendered
    └── launcher.services.LaunchRefused            a request of a person that cannot be granted

An error has two readers. ``code`` and ``params`` are for people: the site turns them into a translated sentence.
``detail`` is for the log and for the fold-out "details": the other side's own words, never a secret.
"""

from __future__ import annotations

from collections.abc import Mapping


class FootbridgeError(Exception):
    """Something went wrong that somebody can do something about.

    ``code``: a stable dotted name, the key of the sentence a person reads.
    ``transient``: the same call may succeed later, so a retry is right.
    """

    code: str = "error"
    transient: bool = False

    def __init__(self, detail: str = "", *, code: str = "", params: Mapping[str, object] | None = None) -> None:
        super().__init__(detail or code or self.code)
        self.detail = detail
        self.code = code or type(self).code
        self.params: Mapping[str, object] = params or {}
