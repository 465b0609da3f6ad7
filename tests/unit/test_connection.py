"""The connection file is hostile input: strict shape, and a host that the scheduler reports."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.connection import (
    MAX_BYTES,
    SECRET_HEADER,
    Connection,
    ConnectionRejected,
    parse_connection,
    secret_headers,
)

SESSION = "abcdefghjkmn"
GOOD: dict[str, object] = {
    "version": 1,
    "session": SESSION,
    "host": "node01",
    "port": 40123,
    "base_url": "/s/abcdefghjkmn/",
    "flavor": "identity",
    "pid": 4711,
    "server": "jupyter_server 2.21.1",
}


def parse(data: bytes, hosts: tuple[str, ...] = ("node01",)) -> Connection:
    """Parse for the session and hosts of these tests."""
    return parse_connection(data, session_id=SESSION, execution_hosts=hosts)


def changed(**changes: object) -> bytes:
    """A good file with some values changed."""
    return json.dumps({**GOOD, **changes}).encode()


def code_of(data: bytes, hosts: tuple[str, ...] = ("node01",)) -> str:
    """The code with which ``data`` is refused."""
    with pytest.raises(ConnectionRejected) as caught:
        parse(data, hosts)
    return caught.value.code


def test_a_good_file_is_read() -> None:
    assert parse(changed()) == Connection("node01", 40123, "/s/abcdefghjkmn/", "identity", "jupyter_server 2.21.1")


@pytest.mark.parametrize(
    ("claimed", "reported"),
    [
        ("node01", "node01.cluster.example"),
        ("node01.cluster.example", "node01"),
        ("NODE01", "node01"),
        ("node01.a.example", "Node01.b.example"),
        ("10.0.0.7", "10.0.0.7"),
    ],
)
def test_the_schedulers_name_of_the_host_counts(claimed: str, reported: str) -> None:
    assert parse(changed(host=claimed), ("other", reported)).host == reported


@pytest.mark.parametrize(
    ("claimed", "hosts"),
    [
        ("node02", ("node01",)),
        ("node01", ()),
        ("node0", ("node01",)),
        ("10.0.0.8", ("10.0.0.7",)),
        ("10.evil.example", ("10.0.0.7",)),
        ("localhost", ("node01",)),
    ],
)
def test_another_host_is_refused(claimed: str, hosts: tuple[str, ...]) -> None:
    assert code_of(changed(host=claimed), hosts) == "connection.wrong_host"


@pytest.mark.parametrize("port", [0, 22, 1023, 65536, -1, 10**30])
def test_a_port_outside_the_range_is_refused(port: int) -> None:
    assert code_of(changed(port=port)) == "connection.wrong_port"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", True),
        ("version", 1.0),
        ("port", "40123"),
        ("port", 40123.0),
        ("port", True),
        ("port", None),
        ("pid", 0),
        ("pid", False),
        ("host", ""),
        ("host", "node01\n"),
        ("host", "a b"),
        ("host", "user@node01"),
        ("host", ["node01"]),
        ("host", "n" * 300),
        ("base_url", ""),
        ("base_url", "/s/x"),
        ("base_url", "//evil.example/"),
        ("base_url", "/a b/"),
        ("base_url", "/\r\nX: y/"),
        ("flavor", "password"),
        ("flavor", None),
        ("server", ""),
        ("server", "<script>"),
        ("server", "x" * 65),
        ("session", 12),
    ],
)
def test_a_value_of_the_wrong_shape_is_refused(key: str, value: object) -> None:
    assert code_of(changed(**{key: value})) == "connection.wrong_shape"


def test_another_version_is_refused() -> None:
    assert code_of(changed(version=2)) == "connection.wrong_version"


def test_the_file_of_another_session_is_refused() -> None:
    assert code_of(changed(session="zzzzzzzzzzzz")) == "connection.wrong_session"


@pytest.mark.parametrize("key", sorted(GOOD))
def test_a_missing_key_is_refused(key: str) -> None:
    assert code_of(json.dumps({k: v for k, v in GOOD.items() if k != key}).encode()) == "connection.wrong_shape"


def test_an_unknown_key_is_refused() -> None:
    assert code_of(changed(command="rm")) == "connection.wrong_shape"


def test_a_repeated_key_is_refused() -> None:
    twice = changed().replace(b'"port": 40123', b'"port": 40123, "port": 22222')
    assert code_of(twice) == "connection.not_json"


@pytest.mark.parametrize("data", [b"[]", b"1", b'"x"', b"null", json.dumps([GOOD]).encode()])
def test_json_that_is_no_object_is_refused(data: bytes) -> None:
    assert code_of(data) == "connection.wrong_shape"


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"[" * 4096, b'{"a":' * 800, b"NaN", changed().replace(b"40123", b"NaN"), b"\x00" * 10],
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    assert code_of(data) == "connection.not_json"


def test_a_large_file_is_refused_unread() -> None:
    assert code_of(changed() + b" " * MAX_BYTES) == "connection.too_large"


@given(st.binary(max_size=5000))
def test_no_bytes_lead_to_another_error(data: bytes) -> None:
    with pytest.raises(ConnectionRejected):
        parse(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD, _JSON)))
def test_no_values_lead_to_another_error_or_another_host(values: dict[str, object]) -> None:
    data = json.dumps({**GOOD, **values}).encode()
    try:
        assert parse(data).host == "node01"
    except ConnectionRejected as error:
        assert error.code.startswith("connection.")  # noqa: PT017 - both outcomes are right


def test_an_error_never_quotes_what_is_no_host_name() -> None:
    with pytest.raises(ConnectionRejected) as caught:
        parse(changed(host="<script>alert(1)</script>"))
    assert "script" not in caught.value.detail


def test_the_identity_flavor_has_a_header_of_its_own() -> None:
    assert secret_headers("identity", "s") == {SECRET_HEADER: "s"}


def test_the_token_flavor_is_jupyters_own() -> None:
    assert secret_headers("token", "s") == {"Authorization": "token s"}


SOCKET = {key: value for key, value in GOOD.items() if key != "port"} | {"socket": "/tmp/fb.aB3xY9kz/server.sock"}


def with_socket(path: object, **changes: object) -> bytes:
    """A file of a server that listens on a socket."""
    return json.dumps({**SOCKET, "socket": path, **changes}).encode()


def parse_socket(data: bytes) -> Connection:
    """Parse for a cluster whose execution hosts are reached by SSH."""
    return parse_connection(data, session_id=SESSION, execution_hosts=("node01",), may_be_socket=True)


@pytest.mark.parametrize("path", ["/tmp/fb.aB3xY9kz/server.sock", "/scratch/job.12_3@x/fb.00000000/server.sock"])
def test_a_socket_in_a_jobs_folder_is_read(path: str) -> None:
    connection = parse_socket(with_socket(path))
    assert (connection.host, connection.port, connection.socket) == ("node01", 0, path)


def test_a_port_is_read_where_a_socket_may_be_too() -> None:
    assert parse_socket(changed()).port == 40123


@pytest.mark.parametrize(
    "path",
    [
        "",
        7,
        None,
        ["/tmp/fb.aB3xY9kz/server.sock"],
        "tmp/fb.aB3xY9kz/server.sock",
        "/var/run/docker.sock",
        "/tmp/fb.aB3xY9kz/other.sock",
        "/tmp/fb.short/server.sock",
        "/tmp/../run/fb.aB3xY9kz/server.sock",
        "/tmp/./fb.aB3xY9kz/server.sock",
        "//fb.aB3xY9kz/server.sock",
        "/tmp/fb.aB3xY9kz/server.sock\n",
        "/tmp/fb.aB3xY9kz/../server.sock",
        "/tmp/a b/fb.aB3xY9kz/server.sock",
        "/tmp/\0/fb.aB3xY9kz/server.sock",
        "/" + "a" * 90 + "/fb.aB3xY9kz/server.sock",
        "/tmp" * 100_000,
    ],
)
def test_another_socket_of_the_host_is_refused(path: object) -> None:
    with pytest.raises(ConnectionRejected) as caught:
        parse_socket(with_socket(path))
    assert caught.value.code in ("connection.wrong_socket", "connection.too_large")


def test_a_socket_is_refused_where_no_way_leads_to_it() -> None:
    assert code_of(with_socket("/tmp/fb.aB3xY9kz/server.sock")) == "connection.wrong_shape"


def test_a_socket_and_a_port_are_refused() -> None:
    with pytest.raises(ConnectionRejected):
        parse_socket(with_socket("/tmp/fb.aB3xY9kz/server.sock", port=40123))
