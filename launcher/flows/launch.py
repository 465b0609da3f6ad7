"""The way of a launch: check the values, look on the cluster what only it can know, then create the session.

The form and the API both come here, so both refuse the same things with the same words. Nothing is written or
submitted before everything has been checked.
"""

from __future__ import annotations

from collections.abc import Mapping

from launcher import credential_state, services
from launcher.catalog import ChoicesRefused, LaunchChoices, check_choices
from launcher.clusters import Cluster
from launcher.entitlements import entitlement_of
from launcher.fits import impossible
from launcher.flows.facts import facts_of, is_fresh, known_facts
from launcher.models import InteractiveSession
from launcher.parts import apps, clusters, hands, hands_loop
from launcher.services import LaunchRefused
from launcher.ssh.errors import HostKeyChanged, KeyRefused, LoginRefused, SSHError
from portal.accounts.models import User

LOOK_SECONDS = 30
CONFIRM_SECONDS = 3.0
_IMAGE_SUFFIXES = (".sif", ".simg", ".img")


def default_cluster() -> Cluster:
    """The cluster that sessions are launched on: the first of the clusters file."""
    return next(iter(clusters().values()))


def launch(*, user: User, app_id: str, raw: Mapping[str, object], address: str) -> InteractiveSession:
    """A new session for ``user`` from raw values of a form or of JSON. Raises LaunchRefused."""
    app = apps().get(app_id)
    if app is None:
        raise LaunchRefused(code="app.unknown")
    cluster = default_cluster()
    services.refuse_above_limit(user, app=app, cluster=cluster)
    if not credential_state.can_act(cluster.id, user.username):
        raise LaunchRefused(code=f"launch.not_connected.{cluster.credential}")
    try:
        choices = check_choices(app, cluster, raw, most_hours=entitlement_of(user, app, cluster).hours)
    except ChoicesRefused as refused:
        raise LaunchRefused(
            code="launch.invalid",
            fields=tuple((mistake.field, mistake.code, mistake.params) for mistake in refused.mistakes),
        ) from refused
    _refuse_impossible(cluster, user.username, choices)
    _look_on_cluster(cluster, user.username, choices)
    return services.create_session(owner=user, app=app, cluster=cluster, choices=choices, address=address)


def _refuse_impossible(cluster: Cluster, username: str, choices: LaunchChoices) -> None:
    """Refuse what the scheduler's own queues and hosts show that it could never start.

    What was heard a while ago makes us ask again, and only a fresh answer refuses; what is not known never does.
    """
    facts = known_facts(cluster, username)
    if facts is None or not impossible(facts, choices):
        return
    facts = facts_of(cluster, username, wait_seconds=CONFIRM_SECONDS)
    mistakes = impossible(facts, choices) if facts is not None and is_fresh(facts) else ()
    if mistakes:
        fields = tuple((mistake.field, mistake.code, mistake.params) for mistake in mistakes)
        raise LaunchRefused(code="launch.invalid", fields=fields)


def _look_on_cluster(cluster: Cluster, username: str, choices: LaunchChoices) -> None:
    """Whether the image and the folder are there, as this user sees them."""
    if not choices.image and not choices.folder:
        return
    try:
        image, folder = hands_loop().run(_kinds(cluster, username, choices), LOOK_SECONDS)
    except SSHError as error:
        raise LaunchRefused(error.detail, code=_why_not_looked(cluster, username, error)) from error
    fields: list[tuple[str, str, Mapping[str, object]]] = []
    if choices.image and image != "file":
        code = {"folder": "image.is_a_folder", "missing": "image.missing"}.get(image, "image.not_a_file")
        fields.append(("image", code, {"path": choices.image}))
    if choices.folder and folder != "folder":
        fields.append(("folder", "folder.missing" if folder == "missing" else "folder.not_a_folder", {}))
    if fields:
        raise LaunchRefused(code="launch.invalid", fields=tuple(fields))


def _why_not_looked(cluster: Cluster, username: str, error: SSHError) -> str:
    """The code of the refusal: a login host that does not answer, is not the known one, or does not let us in."""
    if isinstance(error, HostKeyChanged):
        return "launch.host_key_changed"
    if not isinstance(error, LoginRefused):
        return "launch.cluster_away"
    if not credential_state.can_act(cluster.id, username):  # gone a moment ago, or thrown away for being wrong
        return f"launch.not_connected.{cluster.credential}"
    return "launch.key_refused" if isinstance(error, KeyRefused) else "launch.login_refused"


async def _kinds(cluster: Cluster, username: str, choices: LaunchChoices) -> tuple[str, str]:
    async with hands().files(cluster, username, reason="launch") as files:
        image = await files.kind(choices.image) if choices.image else ""
        folder = ""
        if choices.folder:
            path = choices.folder if choices.folder.startswith("/") else f"{await files.home()}/{choices.folder}"
            folder = await files.kind(path)
    return image, folder


def images_for(cluster: Cluster, username: str) -> tuple[str, ...]:
    """Container images in the cluster's library folders, as this user sees them. Raises SSHError."""
    return hands_loop().run(_images(cluster, username), LOOK_SECONDS)


async def _images(cluster: Cluster, username: str) -> tuple[str, ...]:
    found: list[str] = []
    async with hands().files(cluster, username, reason="images") as files:
        for folder in cluster.image_folders:
            try:
                names = await files.names(folder, 500)
            except SSHError:
                continue  # a library that is missing or closed to this user offers nothing
            images = sorted(name for name in names if name.endswith(_IMAGE_SUFFIXES))
            found += [f"{folder.rstrip('/')}/{name}" for name in images]
    return tuple(found)
