"""The clusters file: what it accepts, and that every mistake is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.clusters import Cluster, ClustersError, QueueLimits, load_clusters, memory_mib, parse_clusters

EXAMPLE = Path(__file__).parents[2] / "config" / "clusters.example.toml"
QUEUE = '[[clusters.one.queues]]\nname = "workq"\n'


def text(extra: str = "", queue: str = QUEUE) -> str:
    """A clusters file with the least that it needs, and ``extra`` lines."""
    return f'[clusters.one]\nname = "One"\nlogin_hosts = ["login"]\nhost_keys = ["ssh-ed25519 A"]\n{extra}\n{queue}'


def mistakes_in(source: str) -> str:
    """What the error says."""
    with pytest.raises(ClustersError) as caught:
        parse_clusters(source)
    return caught.value.detail


@pytest.mark.parametrize(
    ("written", "mib"),
    [
        ("4gb", 4096),
        ("4", 4096),
        (" 4 GB ", 4096),
        ("4GiB", 4096),
        ("1.5g", 1536),
        (".5 g", 512),
        ("512mb", 512),
        ("512 MiB", 512),
        ("1t", 1024 * 1024),
        ("2048kb", 2),
        ("0", 0),
    ],
)
def test_an_amount_of_memory_is_read(written: str, mib: int) -> None:
    assert memory_mib(written) == mib


@pytest.mark.parametrize(
    "written", ["", "1.5x", "gb", "4 gb gb", "-1gb", "1e3", "inf", "nan", "100b", "1,5gb", "9" * 400, "4gb\n5"]
)
def test_what_is_no_amount_of_memory_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="not an amount of memory"):
        memory_mib(written)


@given(st.text())
def test_any_text_is_an_amount_or_refused(written: str) -> None:
    try:
        assert memory_mib(written) >= 0
    except ValueError as error:
        assert "not an amount" in str(error)  # noqa: PT017 - both outcomes are right


def test_the_smallest_file_has_sensible_defaults() -> None:
    cluster = parse_clusters(text())["one"]
    assert (cluster.scheduler, cluster.sessions_folder, cluster.queues[0].max_cores) == (
        "pbs",
        ".footbridge/sessions",
        64,
    )


def test_clusters_keep_their_order() -> None:
    second = text().replace("clusters.one", "clusters.another")
    assert list(parse_clusters(text() + second)) == ["one", "another"]


@pytest.mark.parametrize(("written", "mib"), [('"8gb"', 8192), ("8", 8192), ("0.5", 512)])
def test_a_plain_number_of_memory_means_gibibytes(written: str, mib: int) -> None:
    queue = QUEUE + f"max_memory = {written}\n"
    assert parse_clusters(text(queue=queue))["one"].queues[0].max_memory_mib == mib


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('colour = "red"', "clusters.one.colour"),
        ('id = "other"', "clusters.one.id"),
        ('scheduler = "lsf"', "clusters.one.scheduler"),
        ('commands_folder = "opt/pbs"', "clusters.one.commands_folder"),
        ('sessions_folder = "/scratch"', "clusters.one.sessions_folder"),
        ('sessions_folder = "a/../../etc"', "clusters.one.sessions_folder"),
        ('sessions_folder = ".."', "clusters.one.sessions_folder"),
        ('modules = ["anaconda\\nrm"]', "clusters.one.modules.0"),
        ('modules = ["-f"]', "clusters.one.modules.0"),
        ('image_folders = ["images"]', "clusters.one.image_folders.0"),
        ('listen_address = "eth0; id"', "clusters.one.listen_address"),
        ('reach = "carrier-pigeon"', "clusters.one.reach"),
        ('reach = "ssh-node"', "node_host_keys"),
        ("node_ssh_port = 0", "clusters.one.node_ssh_port"),
        ('node_known_hosts = "known_hosts"', "clusters.one.node_known_hosts"),
        ('operator = "-oProxyCommand=x"', "clusters.one.operator"),
        ("command_timeout_seconds = 0", "clusters.one.command_timeout_seconds"),
        ("start_timeout_seconds = inf", "clusters.one.start_timeout_seconds"),
        ("start_timeout_seconds = nan", "clusters.one.start_timeout_seconds"),
    ],
)
def test_a_wrong_line_is_named_with_its_key(line: str, key: str) -> None:
    assert key in mistakes_in(text(line))


def test_by_ssh_to_the_execution_host_the_server_listens_on_no_network() -> None:
    lines = 'reach = "ssh-node"\nnode_host_keys = ["ssh-ed25519 AAAA"]\nlisten_address = "10.0.0.1"\n'
    cluster = parse_clusters(text(lines))["one"]
    assert (cluster.listens_on_socket, cluster.bind_address) == (True, "127.0.0.1")
    on_port = parse_clusters(text(lines + 'listen_on = "port"\n'))["one"]
    assert (on_port.listens_on_socket, on_port.bind_address) == (False, "127.0.0.1")
    usual = parse_clusters(text('listen_address = "10.0.0.1"'))["one"]
    assert (usual.listens_on_socket, usual.bind_address) == (False, "10.0.0.1")


@pytest.mark.parametrize("host", ["login:0", "login:65536", "login:", "a b", "-oProxyCommand=x", "[::1", "x@y", ""])
def test_what_is_no_login_host_is_refused(host: str) -> None:
    assert "login_hosts.0" in mistakes_in(text().replace('"login"', f'"{host}"'))


@pytest.mark.parametrize("host", ["login", "login.example:22", "10.0.0.1:65535", "[::1]:2222", "[fe80::1]"])
def test_a_login_host_may_have_a_port(host: str) -> None:
    assert parse_clusters(text().replace('"login"', f'"{host}"'))["one"].login_hosts == (host,)


@pytest.mark.parametrize(
    ("queue", "key"),
    [
        ("", "queues"),
        ("[[clusters.one.queues]]\nname = 'a b'\n", "queues.0.name"),
        ("[[clusters.one.queues]]\nname = '-q'\n", "queues.0.name"),
        (QUEUE + "max_cores = 0\n", "queues.0.max_cores"),
        (QUEUE + "max_memory = '4xb'\n", "queues.0.max_memory"),
        (QUEUE + "max_memory = true\n", "queues.0.max_memory"),
        (QUEUE + "max_hours = inf\n", "queues.0.max_hours"),
        (QUEUE + QUEUE, "more than one queue is called workq"),
    ],
)
def test_a_wrong_queue_is_named(queue: str, key: str) -> None:
    assert key in mistakes_in(text(queue=queue))


def test_all_mistakes_are_reported_at_once() -> None:
    detail = mistakes_in(text('scheduler = "lsf"\ncolour = 1') + "\n[clusters.Two]\n")
    assert all(key in detail for key in ("clusters.one.scheduler", "clusters.one.colour", "clusters.Two.id"))


@pytest.mark.parametrize("source", ["", "x = 1", "[clusters]", "clusters = 3", "[clusters]\none = 3", "= ="])
def test_a_file_of_another_shape_is_refused(source: str) -> None:
    assert mistakes_in(source)


def test_a_missing_file_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(ClustersError, match="No such file"):
        load_clusters(tmp_path / "clusters.toml")


def test_a_file_that_is_not_utf8_is_an_error_in_words(tmp_path: Path) -> None:
    path = tmp_path / "clusters.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ClustersError, match="not UTF-8"):
        load_clusters(path)


def test_the_example_is_valid() -> None:
    assert "demo" in load_clusters(EXAMPLE)


def test_the_example_shows_every_key() -> None:
    shown = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))["clusters"]["demo"]
    assert set(shown) == set(Cluster.model_fields) - {"id"}
    aliases = {entry.alias or name for name, entry in QueueLimits.model_fields.items()}
    assert set(shown["queues"][0]) == aliases


def test_a_queue_is_found_by_its_name() -> None:
    cluster = parse_clusters(text())["one"]
    assert cluster.queue("workq") is cluster.queues[0]
    assert cluster.queue("other") is None


def test_a_host_authority_is_enough_to_know_a_login_host_by() -> None:
    source = text('host_ca_keys = ["ssh-ed25519 B"]').replace('host_keys = ["ssh-ed25519 A"]\n', "")
    cluster = parse_clusters(source)["one"]
    assert (cluster.host_keys, cluster.host_ca_keys) == ((), ("ssh-ed25519 B",))


def test_a_login_host_that_nobody_can_verify_is_refused() -> None:
    assert "host_ca_keys" in mistakes_in(text().replace('host_keys = ["ssh-ed25519 A"]\n', ""))


def test_an_operator_cannot_be_one_who_must_be_signed_in() -> None:
    assert "operator" in mistakes_in(text('operator = "hpcadm"\ncredential = "password"'))
    assert parse_clusters(text('operator = "hpcadm"\ncredential = "enrolled-key"'))
