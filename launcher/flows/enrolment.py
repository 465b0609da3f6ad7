"""What the cluster's password is used for where there are no certificates, and how that is taken back.

Somebody gave it to sign in, or to connect their account. The connection that it opened is still there
(``portal.accounts.ways``): over it the public half of a new key goes into the user's ``authorized_keys``. The key
counts as enrolled when a login host has accepted it.
"""

from __future__ import annotations

import structlog
from django.conf import settings

from launcher import keyring, sealing, services
from launcher.clusters import Cluster
from launcher.models import EnrolledKey
from launcher.parts import clusters, hands, hands_loop
from launcher.ssh.authorized_keys import add_line, key_line, remove_key
from launcher.ssh.connect import connect
from launcher.ssh.credentials import EnrolledKeyCredential
from launcher.ssh.errors import LoginRefused
from launcher.ssh.files import open_files
from portal.accounts.models import User
from portal.errors import FootbridgeError

log = structlog.get_logger(__name__)

ENROL_SECONDS = 45
REMOVE_SECONDS = 20
AT_A_TIME = 100
"""Lines that one run of the task takes out."""


def get_ready(*, cluster: Cluster, user: User, password: str, web_session_key: str, address: str) -> str:
    """Get what lets the portal act as ``user`` on ``cluster``, which has taken their password, from now on.

    ``password``: empty where it is not at hand any more, since the cluster asked for more. ``web_session_key``: empty
    while a second step is still to be made; a password is not kept then, and pages say to connect the account.
    Returns the code of what went wrong, or nothing. Whoever is signed in stays so: only launching needs it.
    """
    try:
        if cluster.credential == "password":
            if not password:
                return "enrol.asks_more"
            if not web_session_key:
                return ""
            keyring.keep_password(
                cluster_id=cluster.id,
                username=user.username,
                password=password,
                web_session_key=web_session_key,
                seconds=settings.SESSION_COOKIE_AGE,
                address=address,
            )
        elif cluster.credential == "enrolled-key":
            _enrol(cluster, user, address)
    except FootbridgeError as error:
        log.warning("not_enrolled", user=user.username, cluster=cluster.id, error=error.code, detail=error.detail)
        return error.code
    except Exception:  # whatever it is, a person who proved who they are gets in
        log.exception("not_enrolled", user=user.username, cluster=cluster.id)
        return "enrol.failed"
    return ""


def _enrol(cluster: Cluster, user: User, address: str) -> None:
    """Have a key in use: a new one, or the present one, whose line is put back where somebody took it out."""
    key = services.key_to_enrol(user=user, cluster_id=cluster.id)
    try:
        hands_loop().run(_install(cluster, key), ENROL_SECONDS)
    except FootbridgeError:
        services.forget_key(key.pk)
        raise
    services.record_enrolled(key.pk, address=address)


async def _install(cluster: Cluster, key: EnrolledKey) -> None:
    conf = settings.CONF
    line = key_line(
        key.public_key,
        source_addresses=conf.source_addresses,
        portal_name=conf.site_name,
        username=key.username,
    )
    async with hands().files(cluster, key.username, reason="enrol") as files:
        await add_line(files, line)
        if key.enrolled_at is not None:
            return
        try:
            connection = await connect(cluster, key.username, _only(key), reason="enrol")
        except LoginRefused as error:
            await remove_key(files, key.public_key)
            raise LoginRefused(error.detail, code="enrol.not_accepted") from error
        connection.close()
        await connection.wait_closed()


def _only(key: EnrolledKey) -> EnrolledKeyCredential:
    """A credential of this key alone, in use or not."""
    private = sealing.unseal(key.private_key_encrypted)

    async def find(cluster_id: str, username: str) -> str:
        return private

    return EnrolledKeyCredential(find)


def revoke(*, user: User, key_id: int, address: str) -> str:
    """Take a key back at once, and its line out of ``authorized_keys``. Returns ``revoked``, ``revoked_line_left``
    where the cluster could not be reached (a task goes on trying), or nothing where there is no such key."""
    key = services.revoke_key(user=user, key_id=key_id, address=address)
    if key is None:
        return ""
    return "revoked" if key.removed_at is not None or _remove_line(key) else "revoked_line_left"


def remove_lines() -> None:
    """Take out the lines of revoked keys that are still there. Repeated by beat."""
    rows = EnrolledKey.objects.filter(revoked_at__isnull=False, removed_at__isnull=True)
    for key in rows.order_by("?")[:AT_A_TIME]:  # those that cannot be removed must not be all that is ever tried
        if not _remove_line(key):
            services.give_up_line(key)


def _remove_line(key: EnrolledKey) -> bool:
    cluster = clusters().get(key.cluster)
    if cluster is None:
        return False
    try:
        hands_loop().run(_remove(cluster, key), REMOVE_SECONDS)
    except FootbridgeError as error:
        log.warning("line_not_removed", user=key.username, cluster=key.cluster, error=error.code, detail=error.detail)
        return False
    services.record_line_removed(key.pk)
    return True


async def _remove(cluster: Cluster, key: EnrolledKey) -> None:
    """Over a connection that the revoked key itself opens, for this and nothing else; else with its successor."""
    try:
        connection = await connect(cluster, key.username, _only(key), reason="revoke")
    except LoginRefused:
        async with hands().files(cluster, key.username, reason="revoke") as files:
            await remove_key(files, key.public_key)
        return
    try:
        async with open_files(connection, timeout_seconds=cluster.command_timeout_seconds) as files:
            await remove_key(files, key.public_key)
    finally:
        connection.abort()
