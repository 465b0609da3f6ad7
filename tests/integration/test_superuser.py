"""Root under another name: refused after its right password, whether its own shell says so or only the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.test import Client

from launcher import parts
from launcher.democluster.settings import Account
from launcher.parts import hands, hands_loop
from portal.accounts.models import User
from portal.audit.models import AuditEvent
from tests.conftest import RunningCluster
from tests.integration.portal_processes import demo_cluster_of
from tests.integration.test_sign_in import post
from tests.settings import FOLDER

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

# names of no other test's: what is pooled for an account is pooled by its name
TWIN, PERSON, OPERATOR = "toor", "carol", "overseer"
PASSWORD = "a-right-Pa55word"

_LYING = f"""#!/bin/sh
[ "$#" = 1 ] && [ "$1" = -u ] && [ "$USER" = {TWIN} ] && echo 4711 && exit
exec "$0.true" "$@"
"""
"""What a start-up file can make of ``id`` for whoever asks in that account's own shell."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, user_ca: Path) -> Iterator[RunningCluster]:
    accounts = (
        Account(TWIN, PASSWORD, ("wheel",), number=0),
        Account(PERSON, PASSWORD, ("physics", "users")),
        Account(OPERATOR, PASSWORD, ("staff",), is_operator=True),
    )
    leave()  # a pool of this module's own: its connections are counted
    with demo_cluster_of(tmp_path_factory.mktemp("twins"), user_ca, *accounts) as cluster:
        yield cluster
        leave()


def leave() -> None:
    """Close all connections; whoever comes next begins with a pool of its own."""
    hands_loop().run(hands().pool.aclose(), 10)
    hands.cache_clear()


@pytest.fixture
def cluster(running: RunningCluster, valkey: None) -> Iterator[Callable[..., None]]:
    """Write the clusters file with these values."""

    def write(**values: object) -> None:
        (FOLDER / "clusters.toml").write_text(running.toml(**values), "utf-8")
        parts.forget()

    yield write
    for account in (TWIN, PERSON, OPERATOR):
        hands_loop().run(hands().pool.close_user("demo", account), 10)
    parts.forget()


@pytest.fixture
def lying_shell(running: RunningCluster) -> Iterator[None]:
    program = running.demo.settings.login_programs / "id"
    honest = program.rename(program.with_name("id.true"))
    program.write_text(_LYING)
    program.chmod(0o755)
    yield
    honest.rename(program)


def refused(client: Client) -> bool:
    """Whether the twin of root is refused, with its own words and event."""
    page = post(client, TWIN, PASSWORD).content.decode()
    causes = [event.data["cause"] for event in AuditEvent.objects.filter(name="user.sign_in_refused", actor=TWIN)]
    return "administers the cluster" in page and causes == ["sign_in.superuser"] and not User.objects.exists()


@pytest.mark.parametrize("credential", ["certificate", "enrolled-key", "password"])
def test_an_account_with_the_number_of_root_is_refused_without_an_operator(
    cluster: Callable[..., None], client: Client, credential: str
) -> None:
    cluster(credential=credential)
    assert refused(client)
    assert hands().pool.health("demo").connections == 0  # nothing is kept of it
    assert post(client, PERSON, PASSWORD).status_code == 302


def test_with_a_wrong_password_it_reads_as_any_other(cluster: Callable[..., None], client: Client) -> None:
    cluster()
    assert b"Check both and try again" in post(client, TWIN, "wrong").content


def test_what_the_operator_says_counts_where_the_account_says_something_else(
    cluster: Callable[..., None], client: Client, lying_shell: None
) -> None:
    cluster(operator=OPERATOR)
    assert refused(client)


def test_a_connection_that_was_kept_to_enrol_a_key_is_closed_at_the_operators_word(
    cluster: Callable[..., None], client: Client, lying_shell: None
) -> None:
    cluster(operator=OPERATOR, credential="enrolled-key")
    assert post(client, OPERATOR, PASSWORD).status_code == 302
    User.objects.all().delete()
    before = hands().pool.health("demo").connections
    assert refused(Client())
    assert hands().pool.health("demo").connections == before == 1


def test_the_operator_is_believed_about_groups(
    cluster: Callable[..., None], client: Client, site: Callable[..., None]
) -> None:
    cluster(operator=OPERATOR)
    site(administrator_groups=("physics",))
    assert post(client, PERSON, PASSWORD).status_code == 302
    assert User.objects.get(username=PERSON).is_administrator
