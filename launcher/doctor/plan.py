"""All checks in their order, and the run over portal and clusters. To add one: a function, and a line here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from launcher.clusters import Cluster
from launcher.doctor import (
    datapath,
    directory,
    host_accounts,
    places,
    portal,
    processes,
    provider,
    reach,
    records,
    scheduling,
)
from launcher.doctor.findings import Finding, Outcome
from launcher.doctor.runner import Check, examine
from launcher.doctor.visit import STEP_SECONDS, Visit, visit
from portal.words import marked as _

PORTAL: tuple[Check[object], ...] = (
    Check("portal.files", _("Private files"), portal.files_private),
    Check("portal.ca", _("The SSH authority"), portal.ca_key),
    Check("portal.encryption", _("Encryption keys"), portal.encryption_keys),
    Check("portal.database", _("The database"), records.database),
    Check("portal.migrations", _("The database's tables"), records.migrations, needs=("portal.database",)),
    Check(
        "portal.sealed", _("Secrets in the database"), records.sealed, needs=("portal.encryption", "portal.migrations")
    ),
    Check("portal.clusters", _("The clusters file"), portal.clusters_file),
    Check("portal.apps", _("The apps"), portal.apps_load),
    Check("portal.sign_in", _("Signing in"), portal.sign_in, needs=("portal.clusters",)),
    Check("portal.ssh_fast_path", _("The fast way through SSH"), datapath.fast_path),
    Check("portal.static", _("Static files"), portal.static_files),
    Check("portal.valkey", _("Valkey"), processes.valkey),
    Check("portal.clock", _("The clock"), processes.clock, needs=("portal.valkey",)),
    Check("portal.worker", _("The worker"), processes.worker, needs=("portal.valkey",)),
    Check("portal.beat", _("Beat"), processes.beat, needs=("portal.valkey",)),
    Check("portal.web", _("The web process"), processes.web, needs=("portal.database", "portal.valkey")),
    Check("portal.sessions_domain", _("The sessions' addresses"), processes.sessions_domain),
    Check("portal.mail", _("The mail server"), portal.mail),
)

WAYS: Mapping[str, tuple[Check[object], ...]] = {
    "ldap": (
        Check("portal.ldap", _("The directory"), directory.reach),
        Check("portal.ldap_bind", _("The portal's account there"), directory.bind, needs=("portal.ldap",)),
        Check("portal.ldap_people", _("People in the directory"), directory.people, needs=("portal.ldap_bind",)),
    ),
    "openid": (
        Check("portal.openid", _("The OpenID provider"), provider.document),
        Check("portal.openid_keys", _("The provider's keys"), provider.keys, needs=("portal.openid",)),
        Check("portal.openid_address", _("The redirect address"), provider.own_address),
    ),
    "pam": (Check("portal.pam", _("This computer's accounts"), host_accounts.service),),
}
"""More about the ways to sign in that the portal uses; of the others there is nothing to say."""

_LOGIN = "cluster.login"
_COMMANDS = ("cluster.shell", "cluster.commands")

CLUSTER: tuple[Check[Visit], ...] = (
    Check("cluster.name", _("The login hosts' names"), reach.name),
    Check("cluster.port", _("The login hosts' ports"), reach.port, ("cluster.name",), STEP_SECONDS),
    Check("cluster.host_key", _("The host keys"), reach.host_key, ("cluster.port",), STEP_SECONDS),
    Check(_LOGIN, _("Login"), reach.login, ("cluster.host_key",), STEP_SECONDS),
    Check("cluster.shell", _("The shell"), reach.shell, (_LOGIN,), STEP_SECONDS),
    Check("cluster.clock", _("The cluster's clock"), reach.clock, (_LOGIN, "cluster.shell"), STEP_SECONDS),
    Check(
        "cluster.commands", _("The scheduler's commands"), scheduling.commands, (_LOGIN, "cluster.shell"), STEP_SECONDS
    ),
    Check("cluster.scheduler", _("The scheduler"), scheduling.answers, (_LOGIN, *_COMMANDS), STEP_SECONDS),
    Check(
        "cluster.queues", _("The queues"), scheduling.queues, (_LOGIN, *_COMMANDS, "cluster.scheduler"), STEP_SECONDS
    ),
    Check("cluster.job", _("A tiny job"), scheduling.job, (_LOGIN, *_COMMANDS, "cluster.scheduler"), STEP_SECONDS),
    Check("cluster.sftp", _("SFTP"), places.sftp, (_LOGIN, "cluster.shell"), STEP_SECONDS),
    Check("cluster.home", _("The home folder"), places.home, (_LOGIN, "cluster.sftp"), STEP_SECONDS),
    Check("cluster.folder", _("The sessions' folder"), places.sessions_folder, (_LOGIN, "cluster.sftp"), STEP_SECONDS),
    Check("cluster.forwarding", _("The way to execution hosts"), places.forwarding, (_LOGIN,), STEP_SECONDS),
    Check("cluster.modules", _("Modules"), places.modules, (_LOGIN, "cluster.shell"), STEP_SECONDS),
    Check("cluster.images", _("Container images"), places.images, (_LOGIN, "cluster.sftp"), STEP_SECONDS),
    Check("cluster.containers", _("Containers"), places.containers, (_LOGIN, "cluster.shell"), STEP_SECONDS),
    Check("cluster.jupyter", _("Jupyter"), places.jupyter, (_LOGIN, "cluster.shell"), STEP_SECONDS),
)


def check_portal() -> Iterator[Finding]:
    """Findings about the portal itself, with Django set up."""
    yield from examine([*portal.BEFORE_DJANGO, *_portal_checks()], None)


def check_portal_further() -> Iterator[Finding]:
    """The same without the checks that need no Django: they were made before."""
    yield from examine(_portal_checks(), None)


def _portal_checks() -> list[Check[object]]:
    """All that concern this portal, those of its ways to sign in after signing in itself."""
    from django.conf import settings

    checks: list[Check[object]] = []
    for check in PORTAL:
        checks.append(check)
        if check.id == "portal.sign_in":
            checks += [each for way in settings.CONF.auth for each in WAYS.get(way, ())]
    return checks


def check_cluster(cluster: Cluster, username: str, *, with_job: bool = False) -> Iterator[Finding]:
    """Findings about one cluster, as ``username``; without one, only what needs no login."""
    with visit(cluster, username, with_job=with_job) as there:
        yield from examine(CLUSTER, there, cluster=cluster.id)


def account_for(cluster: Cluster, wish: str, administrators: Sequence[str]) -> str:
    """As whom to look: the wish, else the cluster's operator, else the first administrator."""
    return wish or cluster.operator or next(iter(administrators), "")


def is_usable(findings: Sequence[Finding], check_id: str) -> bool:
    """Whether a check was made and found nothing broken."""
    mine = [finding for finding in findings if finding.id == check_id]
    return bool(mine) and all(finding.outcome in (Outcome.OK, Outcome.DOUBTFUL) for finding in mine)
