"""What ``doctor`` finds about a cluster: each test breaks one real thing and expects exactly that to be named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import parts
from launcher.doctor import plan
from launcher.doctor.findings import Finding, Outcome, exit_status
from launcher.ssh.ca import create_user_ca
from tests.conftest import RunningCluster
from tests.integration.ssh_server import free_port
from tests.settings import FOLDER

pytestmark = pytest.mark.integration


def look(*, username: str = "alice", with_job: bool = False) -> list[Finding]:
    """All findings about the demo cluster."""
    return list(plan.check_cluster(parts.clusters()["demo"], username, with_job=with_job))


def changed(cluster: RunningCluster, **values: object) -> None:
    """A clusters file with one thing wrong."""
    (FOLDER / "clusters.toml").write_text(cluster.toml(**values), encoding="utf-8")
    parts.forget()


def only_trouble(findings: list[Finding]) -> Finding:
    """The one finding that is not fine; everything that could be looked at beside it is."""
    trouble = [finding for finding in findings if finding.outcome in (Outcome.DOUBTFUL, Outcome.BROKEN)]
    assert len(trouble) == 1, [(finding.id, finding.said.what.english()) for finding in trouble]
    assert trouble[0].said.cure is not None
    return trouble[0]


def cure(finding: Finding) -> str:
    """The cure and its command."""
    return f"{finding.said.cure.english() if finding.said.cure else ''} {finding.said.command}"


def outcomes(findings: list[Finding]) -> dict[str, str]:
    """Outcome by check."""
    return {finding.id: str(finding.outcome) for finding in findings}


def test_nothing_is_wrong_with_a_healthy_cluster(demo_cluster: RunningCluster) -> None:
    findings = look()
    assert exit_status(findings) == 0, [finding.said for finding in findings]
    assert [finding.id for finding in findings] == [check.id for check in plan.CLUSTER]
    assert {finding.id for finding in findings if finding.outcome is not Outcome.OK} == {"cluster.job"}
    assert not list((demo_cluster.root / "home" / "alice").glob(".footbridge-doctor-*"))


def test_a_tiny_job_is_submitted_only_when_wished_and_cancelled_again(demo_cluster: RunningCluster) -> None:
    findings = look(with_job=True)
    assert outcomes(findings)["cluster.job"] == "ok"
    found = next(finding for finding in findings if finding.id == "cluster.job")
    assert "cancelled" in found.said.what.english()


def test_a_login_host_whose_name_is_not_found_is_named(demo_cluster: RunningCluster) -> None:
    changed(demo_cluster, login_hosts=["no-such-host.invalid"])
    findings = look()
    found = only_trouble(findings)
    assert found.id == "cluster.name"
    assert "no-such-host.invalid" in found.said.what.english()
    assert "getent hosts no-such-host.invalid" in cure(found)
    assert set(list(outcomes(findings).values())[1:]) == {"not checked"}


def test_one_of_two_login_hosts_that_is_not_found_is_doubtful_and_the_rest_is_looked_at(
    demo_cluster: RunningCluster,
) -> None:
    changed(demo_cluster, login_hosts=["no-such-host.invalid", f"127.0.0.1:{demo_cluster.demo.port}"])
    findings = look()
    assert only_trouble(findings).id == "cluster.name"
    assert exit_status(findings) == 1
    assert outcomes(findings)["cluster.queues"] == "ok"


def test_a_port_that_nobody_listens_on_is_named(demo_cluster: RunningCluster) -> None:
    port = free_port()
    changed(demo_cluster, login_hosts=[f"127.0.0.1:{port}"])
    found = only_trouble(look())
    assert found.id == "cluster.port"
    assert "refused" in found.said.what.english()
    assert f"nc -vz 127.0.0.1 {port}" in cure(found)


def test_another_host_key_is_named_with_the_one_that_is_shown(demo_cluster: RunningCluster) -> None:
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtJZ8ZMUQ7XbBQO0zKvvP0tVVG1S0gE0ZW8m1A3T5n3"
    changed(demo_cluster, host_keys=[other])
    findings = look()
    found = only_trouble(findings)
    assert found.id == "cluster.host_key"
    assert "SHA256:" in found.said.what.english()
    assert demo_cluster.demo.host_public_key.split()[1] in cure(found)
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in cure(found)
    assert outcomes(findings)["cluster.login"] == "not checked"


def test_a_host_key_that_is_none_is_named(demo_cluster: RunningCluster) -> None:
    changed(demo_cluster, host_keys=["ssh-ed25519 nonsense"])
    found = only_trouble(look())
    assert found.id == "cluster.host_key"
    assert "ssh-keyscan" in cure(found)


@pytest.fixture
def distrustful_cluster(tmp_path: Path, valkey: None) -> Iterator[RunningCluster]:
    """A cluster that trusts another portal's authority."""
    create_user_ca(tmp_path / "other_ca")
    cluster = RunningCluster(FOLDER / "distrustful", tmp_path / "other_ca.pub")
    try:
        changed(cluster)
        yield cluster
    finally:
        cluster.stop()


def test_a_cluster_that_trusts_another_authority_is_named(distrustful_cluster: RunningCluster, user_ca: Path) -> None:
    found = only_trouble(look())
    assert found.id == "cluster.login"
    assert "refuses alice" in found.said.what.english()
    assert "TrustedUserCAKeys" in cure(found)


def test_an_account_that_is_not_there_is_named(demo_cluster: RunningCluster) -> None:
    found = only_trouble(look(username="nobody-here"))
    assert found.id == "cluster.login"
    assert "nobody-here" in found.said.what.english()


def test_without_an_account_only_what_needs_no_login_is_looked_at(demo_cluster: RunningCluster) -> None:
    findings = look(username="")
    assert exit_status(findings) == 0
    assert outcomes(findings)["cluster.host_key"] == "ok"
    assert {outcome for check, outcome in list(outcomes(findings).items())[3:]} == {"not checked"}


def test_a_wrong_commands_folder_is_named_with_the_right_one(demo_cluster: RunningCluster) -> None:
    changed(demo_cluster, commands_folder="/opt/nothing/bin")
    findings = look()
    found = only_trouble(findings)
    assert found.id == "cluster.commands"
    assert "/opt/nothing/bin/qsub" in found.said.what.english()
    assert f'commands_folder = "{demo_cluster.demo.commands_folder}"' in cure(found)
    assert outcomes(findings)["cluster.queues"] == "not checked"


@pytest.mark.parametrize("fault", ["down", "garbled"])
def test_a_scheduler_without_a_usable_answer_is_named(demo_cluster: RunningCluster, fault: str) -> None:
    demo_cluster.fault("scheduler", fault)
    found = only_trouble(look())
    assert found.id == "cluster.scheduler"
    assert "qstat" in cure(found)


def test_a_scheduler_that_hangs_is_named_and_holds_nothing_up(demo_cluster: RunningCluster) -> None:
    changed(demo_cluster, command_timeout_seconds=2)
    demo_cluster.fault("scheduler", "hung")
    findings = look()
    found = next(finding for finding in findings if finding.id == "cluster.scheduler")
    assert found.outcome is Outcome.BROKEN
    assert "hangs" in cure(found)
    assert sum(finding.seconds for finding in findings) < 90


def test_a_queue_that_is_not_there_is_named_with_those_that_are(demo_cluster: RunningCluster) -> None:
    text = demo_cluster.toml().replace('name = "workq"', 'name = "nightly"')
    (FOLDER / "clusters.toml").write_text(text, encoding="utf-8")
    parts.forget()
    found = only_trouble(look())
    assert found.id == "cluster.queues"
    assert "nightly" in found.said.what.english()
    assert "workq" in cure(found)


def test_more_promised_than_a_queue_allows_is_named_with_the_numbers(demo_cluster: RunningCluster) -> None:
    text = demo_cluster.toml().replace("max_hours = 8", "max_hours = 100")
    (FOLDER / "clusters.toml").write_text(text, encoding="utf-8")
    parts.forget()
    found = only_trouble(look())
    assert found.id == "cluster.queues"
    assert found.outcome is Outcome.DOUBTFUL
    assert "max_hours 100 > 8" in found.said.what.english()


def test_a_full_home_is_named(demo_cluster: RunningCluster) -> None:
    demo_cluster.fault("home_full", "alice")
    found = only_trouble(look())
    assert found.id == "cluster.home"
    assert "full" in found.said.what.english()
    assert "quota -s" in cure(found)


def test_a_file_where_the_sessions_folder_should_be_is_named(demo_cluster: RunningCluster) -> None:
    changed(demo_cluster, sessions_folder="README-demo.txt")
    found = only_trouble(look())
    assert found.id == "cluster.folder"
    assert "ls -ld ~/README-demo.txt" in cure(found)


def test_a_module_that_is_not_there_is_named(demo_cluster: RunningCluster) -> None:
    changed(demo_cluster, modules=["anaconda/5.3.0", "anaconda/9.9.9"])
    found = only_trouble(look())
    assert found.id == "cluster.modules"
    assert "anaconda/9.9.9" in found.said.what.english()
    assert "anaconda/5.3.0" not in found.said.what.english()
    assert "module avail" in cure(found)


def test_a_folder_of_images_that_is_not_there_is_named(demo_cluster: RunningCluster) -> None:
    changed(demo_cluster, image_folders=["/no/images/here"])
    found = only_trouble(look())
    assert found.id == "cluster.images"
    assert "image_folders" in cure(found)


def by_node(cluster: RunningCluster, **values: object) -> None:
    """The demo's computers are reached by SSH, and its login host plays them."""
    usual = {"node_ssh_port": cluster.demo.port, "node_host_keys": [cluster.demo.host_public_key]}
    changed(cluster, reach="ssh-node", **usual | values)


def test_the_way_by_ssh_to_a_computer_is_tried(demo_cluster: RunningCluster) -> None:
    by_node(demo_cluster)
    findings = look()
    assert exit_status(findings) == 0, [finding.said for finding in findings]
    found = next(finding for finding in findings if finding.id == "cluster.forwarding")
    assert "lets alice in by SSH" in found.said.what.english()


def test_a_computer_whose_key_nobody_vouches_for_is_named(demo_cluster: RunningCluster) -> None:
    by_node(
        demo_cluster,
        node_host_keys=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtJZ8ZMUQ7XbBQO0zKvvP0tVVG1S0gE0ZW8m1A3T5n3"],
    )
    found = only_trouble(look())
    assert found.id == "cluster.forwarding"
    assert "nobody vouches for" in found.said.what.english()
    assert f"ssh-keyscan -p {demo_cluster.demo.port} " in cure(found)


def test_a_computer_that_no_ssh_leads_to_is_named(demo_cluster: RunningCluster) -> None:
    by_node(demo_cluster, node_ssh_port=free_port())
    found = only_trouble(look())
    assert found.id == "cluster.forwarding"
    assert "does not get to" in found.said.what.english()


def test_a_computer_that_plain_tcp_does_not_lead_to_is_named(demo_cluster: RunningCluster) -> None:
    changed(demo_cluster, reach="direct")  # the demo's computers have names that only its login host knows
    found = only_trouble(look())
    assert found.id == "cluster.forwarding"
    assert "by TCP" in found.said.what.english()
