"""A portal in front of OpenSSH: its clusters file, somebody's sign-in, and what the audit log holds afterwards.

For tests in which Django's test client is the browser and the workers' part is driven by hand.
"""

from __future__ import annotations

import html
import re

from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from launcher import parts
from launcher.parts import hands, hands_loop
from launcher.schedulers.base import Command
from portal.audit.models import AuditEvent
from tests.conftest import toml_value
from tests.integration.openssh import PASSWORD, OpenSSH
from tests.settings import FOLDER

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBpnTzWhQmSKuaHKpdTbJfUSWJlPkQ5Zg6Zo6vAlYbPN"
"""A host key, but of no host here."""


def write_clusters(host: OpenSSH, **options: object) -> None:
    """The clusters file: this login host alone, as the cluster ``hpc``."""
    values = {
        "name": "Test cluster",
        "login_hosts": [f"127.0.0.1:{host.port}"],
        "host_keys": [host.key_line],
        "connect_timeout_seconds": 20,
        "command_timeout_seconds": 20,
    } | options
    lines = [f"{key} = {toml_value(value)}" for key, value in values.items()]
    (FOLDER / "clusters.toml").write_text(
        "[clusters.hpc]\n" + "\n".join(lines) + '\n\n[[clusters.hpc.queues]]\nname = "workq"\n'
    )
    parts.forget()


def sign_in(username: str = "alice", password: str = PASSWORD) -> Client:
    """The browser of somebody who has signed in."""
    client = Client()
    answer = client.post(reverse("accounts:sign-in"), {"username": username, "password": password})
    assert answer.status_code == 302, words(answer)  # type: ignore[arg-type]  # Django's own test type
    return client


def leave(username: str = "alice") -> None:
    """Close this process's connections of an account: what comes next must connect anew."""
    hands_loop().run(hands().pool.close_user("hpc", username), 10)


def forget_connections() -> None:
    """As a process that has just begun: no connections, and no memory of hosts that refused."""
    hands_loop().run(hands().pool.aclose(), 10)
    parts.hands.cache_clear()


def whoami(username: str = "alice") -> str:
    """Who the portal is on the cluster when it acts as this account."""
    result = hands_loop().run(hands().run(parts.clusters()["hpc"], username, Command(("id", "-un"))), 15)
    return result.stdout.decode().strip()


def events(name: str) -> list[dict[str, object]]:
    """What the audit log holds of this kind, oldest first."""
    return [event.data for event in AuditEvent.objects.filter(name=name).order_by("sequence")]


def words(answer: HttpResponse) -> str:
    """What stands on a page, without its tags."""
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", answer.content.decode(), flags=re.DOTALL)
    return " ".join(html.unescape(text).split())
