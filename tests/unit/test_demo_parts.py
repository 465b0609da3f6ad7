"""The pure pieces of the demo: restarts, folders, forms, the clusters file and what is printed."""

from __future__ import annotations

import io
import socket
import stat
from pathlib import Path

import pytest

from launcher.clusters import parse_clusters
from launcher.demo import ports
from launcher.demo.browser import Answer, forms_of
from launcher.demo.clusters_file import clusters_text
from launcher.demo.folder import DemoError, DemoFolder
from launcher.demo.process import rotate
from launcher.demo.steps import Steps
from launcher.demo.supervisor import DEATHS_ALLOWED, QUICK_DEATH_SECONDS, Restarts, refuse_taken_port
from launcher.democluster.settings import DemoSettings


def test_a_process_that_keeps_dying_waits_longer_each_time_and_is_given_up() -> None:
    restarts = Restarts()
    pauses = [restarts.pause_seconds("web", 1) for _ in range(DEATHS_ALLOWED)]
    assert pauses[-1] is None
    waits = [pause for pause in pauses[:-1] if pause is not None]
    assert len(waits) == DEATHS_ALLOWED - 1
    assert waits == sorted(set(waits))


def test_a_process_that_lived_long_begins_anew() -> None:
    restarts = Restarts()
    first = restarts.pause_seconds("web", 1)
    for _ in range(DEATHS_ALLOWED * 2):
        assert restarts.pause_seconds("web", QUICK_DEATH_SECONDS + 1) == first


def test_one_process_does_not_count_for_another() -> None:
    restarts = Restarts()
    for _ in range(DEATHS_ALLOWED):
        restarts.pause_seconds("web", 1)
    assert restarts.pause_seconds("worker", 1) is not None


def test_keys_and_folders_are_made_once_and_for_this_account_only(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path / "var")
    folder.prepare()
    keys = [folder.root / "secret.key", folder.root / "encryption.key"]
    before = [key.read_bytes() for key in keys]
    folder.prepare()
    assert [key.read_bytes() for key in keys] == before
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700


def test_an_unusual_path_puts_the_socket_where_three_libraries_can_read_its_name(tmp_path: Path) -> None:
    odd = DemoFolder(tmp_path / "a folder with spaces & more")
    long = DemoFolder(tmp_path / ("long" * 40))
    for folder in (odd, long):
        assert len(str(folder.valkey_socket)) < 100
        assert " " not in str(folder.valkey_socket)
    assert odd.valkey_socket != long.valkey_socket


def test_one_folder_is_for_one_demo(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path)
    with folder.lock(), pytest.raises(DemoError, match="just starting"), folder.lock():
        pass
    with folder.lock():  # free again
        assert folder.running() is None


def test_the_clusters_file_can_be_read_and_offers_what_the_cluster_has(tmp_path: Path) -> None:
    settings = DemoSettings(root=tmp_path / 'a "quoted" \\ folder')
    cluster = parse_clusters(clusters_text(settings, port=2022, host_key="ssh-ed25519 AAAA"))["demo"]
    assert cluster.login_hosts == ("127.0.0.1:2022",)
    assert cluster.commands_folder == str(settings.commands_folder)
    assert cluster.modules == ("anaconda/5.3.0",)
    assert cluster.is_demonstration
    assert [queue.name for queue in cluster.queues] == [queue.name for queue in settings.queues]
    interactive = cluster.queue("interactive")
    assert interactive is not None
    assert (interactive.max_hours, interactive.max_cores) == (1, 4)


def test_logs_of_earlier_starts_are_kept_under_a_number(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    for start in range(6):
        rotate(log)
        log.write_text(str(start))
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"web.log": "5", "web.log.1": "4", "web.log.2": "3", "web.log.3": "2"}


def test_a_port_that_somebody_listens_on_is_taken_and_refused_with_a_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert ports.is_taken("127.0.0.1", port)
        with pytest.raises(DemoError, match=rf"Port {port} is already taken by .*(?s:.*)PORTAL_PORT=\d+ make demo"):
            refuse_taken_port("127.0.0.1", port, name="PORTAL_PORT")
    assert not ports.is_taken("127.0.0.1", port)


def test_a_listener_that_browsers_would_reach_as_localhost_counts() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        assert ports.is_taken("127.0.0.1", server.getsockname()[1])


def test_an_address_of_another_machine_is_refused_in_words() -> None:
    with pytest.raises(DemoError, match=r"PORTAL_HOST=192\.0\.2\.1"):
        refuse_taken_port("192.0.2.1", 8000, name="PORTAL_PORT")


def test_a_forms_values_are_those_a_browser_would_send() -> None:
    page = Answer("http://localhost/a/", 200, "", """
        <form method="post"><input name="csrf" type="hidden" value="x&amp;y"><input name="cores" value="2">
        <input type="checkbox" name="off"><input type="checkbox" name="on" checked><button name="b">Go</button>
        <select name="queue"><option value="q1">1</option><option value="q2" selected>2</option></select>
        <select name="first"><option value="f1">1</option><option value="f2">2</option></select>
        <input name="gone" value="1" disabled><textarea name="text">some words</textarea></form>
        <form action="/b/"><input name="other" value="1"></form>""")  # fmt: skip
    first, second = forms_of(page)
    assert first.action == "http://localhost/a/"
    assert first.values == {
        "csrf": "x&y", "cores": "2", "on": "on", "queue": "q2", "first": "f1", "text": "some words"
    }  # fmt: skip
    assert second.action == "http://localhost/b/"


def test_steps_are_lines_with_their_time_where_there_is_no_terminal() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    steps = Steps(stream)
    steps.begin("web")
    steps.tick()
    steps.done("on port 1")
    stream.seek(0)
    (line,) = stream.read().splitlines()
    assert line.split() == ["✓", "web", "0.0", "s", "on", "port", "1"]


def test_a_terminal_without_unicode_gets_plain_letters() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    steps = Steps(stream)
    steps.begin("web")
    steps.failed("“no”")
    steps.box(["a"])
    stream.seek(0)
    assert stream.read().splitlines()[1:] == ["+-----+", "|  a  |", "+-----+"]
