"""The main job where the portal goes on to the execution host by SSH: the demo's login host plays the computers too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest
from django.test import Client

from launcher import parts, services
from launcher.flows.launch import launch
from launcher.models import InteractiveSession
from launcher.ssh.errors import TunnelRefused
from launcher.states import SessionState
from portal.accounts.models import User
from tests.conftest import FOLDER, RunningCluster
from tests.integration.sshd import needs_sshd, running_sshd
from tests.story import drive, one_round, run_cell
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

RAW: dict[str, object] = {"cores": "1", "memory": "1 GB", "hours": "1", "title": "Trial"}

# of the server, the kernel's parent
_OPEN_PORTS = """
import os, glob
listening = set()
for name in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(name).readlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            listening.add("socket:[%s]" % fields[9])
ours = {os.readlink(path) for path in glob.glob("/proc/%d/fd/*" % os.getppid()) if os.path.islink(path)}
print(len(ours & listening), oct(os.stat(PATH).st_mode & 0o777))
"""

Change = Callable[..., None]


@pytest.fixture
def reached(demo_cluster: RunningCluster) -> Change:
    """Call it to reach the demo's computers by SSH."""

    def change(**changes: object) -> None:
        values: dict[str, object] = {
            "reach": "ssh-node",
            "node_ssh_port": demo_cluster.demo.port,
            "node_host_keys": [demo_cluster.demo.host_public_key],
        }
        (FOLDER / "clusters.toml").write_text(demo_cluster.toml(**values | changes), encoding="utf-8")
        parts.forget()

    parts.hands_loop().run(parts.hands().pool.close_user("demo", "alice"), 60)
    return change


def launched(alice: User) -> InteractiveSession:
    return launch(user=alice, app_id="jupyter", raw=RAW, address="")


def test_a_session_runs_behind_a_socket_and_no_port_is_open(reached: Change, alice: User) -> None:
    reached()
    session = drive(launched(alice), SessionState.READY)
    assert session.upstream_socket.endswith("/server.sock")
    assert session.upstream_port is None
    assert run_cell(session, _OPEN_PORTS.replace("PATH", repr(session.upstream_socket))) == "0 0o600"
    folder = Path(session.upstream_socket).parent
    services.request_stop(session=session, actor=alice, address="")
    drive(session, SessionState.ENDED)
    assert session.upstream_socket == ""
    wait_for(lambda: not list(folder.iterdir()), seconds=60, what="the job to clean up")
    assert folder.stat().st_mode & 0o777 == 0o700  # nobody else can make a folder of this name and answer there
    folder.rmdir()


def test_a_port_of_loopback_serves_where_sockets_do_not(reached: Change, alice: User) -> None:
    reached(listen_on="port")
    session = drive(launched(alice), SessionState.READY)
    assert session.upstream_socket == ""
    assert session.upstream_port
    assert run_cell(session, "print(6 * 7)") == "42"


def trouble(session: InteractiveSession) -> str:
    wait_for(lambda: one_round(session).upstream_trouble != "", seconds=60, what="the trouble to be seen")
    assert session.state == SessionState.STARTING
    return session.upstream_trouble


def test_a_computer_that_shows_another_key_is_not_spoken_to_and_that_is_said(
    reached: Change, alice: User, as_alice: Client
) -> None:
    reached(node_host_keys=[asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode().strip()])
    session = launched(alice)
    assert trouble(session) == "ssh.node_key_unknown"
    page = as_alice.get(f"/sessions/{session.pk}/").content.decode()
    assert "is not known to the portal" in page


@pytest.mark.skipif(any(mark.name == "skipif" and mark.args[0] for mark in needs_sshd), reason="no sshd to play it")
def test_a_computer_that_does_not_let_the_account_in_is_said(reached: Change, alice: User, as_alice: Client) -> None:
    with running_sshd() as strange:  # it trusts another authority
        (address,) = strange.cluster.login_hosts
        reached(node_ssh_port=int(address.rpartition(":")[2]), node_host_keys=list(strange.cluster.host_keys))
        session = launched(alice)
        assert trouble(session) == "ssh.node_refused"
        page = as_alice.get(f"/sessions/{session.pk}/").content.decode()
        assert "does not let the portal in" in page
    reached()  # the administrators have mended it
    drive(session, SessionState.READY)
    assert session.upstream_trouble == ""


def test_the_demo_leads_to_no_other_socket_of_this_machine(reached: Change, demo_cluster: RunningCluster) -> None:
    reached()
    node = demo_cluster.demo.settings.nodes[0].name
    cluster = parts.clusters()["demo"]
    way = parts.hands().tunnel(cluster, "alice", node, 0, asyncio.Protocol, socket="/var/run/docker.sock")
    with pytest.raises(TunnelRefused) as caught:
        parts.hands_loop().run(way, 60)
    assert caught.value.code == "ssh.forwarding_prohibited"
