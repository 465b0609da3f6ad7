"""What of a head passes, in both directions: examples for each rule, and properties over arbitrary fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.proxy import headers
from launcher.proxy.cookies import confined_cookie, cookie_value, names_of, passing_cookies
from launcher.proxy.headers import (
    MAX_HEAD_BYTES,
    SECRET_HEADER,
    BadHead,
    Origin,
    Secret,
    incoming_response,
    outgoing_handshake,
    outgoing_request,
    request_target,
    without_token,
)

HOST = b"abcdefghijklmnopqrstuvwx.localhost:8000"
ORIGIN = Origin("http", HOST)
IDENTITY = Secret("identity", "s3cret")


def sent(*fields: tuple[bytes, bytes], method: str = "GET", secret: Secret = IDENTITY) -> bytes:
    """The head for the server, with one host."""
    return outgoing_request(
        method=method,
        target=b"/x",
        fields=[(b"host", HOST), *fields],
        origin=ORIGIN,
        client="10.0.0.1",
        secret=secret,
    ).head


def names(head: bytes) -> list[bytes]:
    return [line.partition(b":")[0] for line in head.split(b"\r\n")[1:] if line]


def test_a_head_is_the_request_line_the_host_the_browsers_fields_and_ours() -> None:
    assert sent((b"accept", b"*/*")) == (
        b"GET /x HTTP/1.1\r\nhost: " + HOST + b"\r\naccept: */*\r\nx-forwarded-for: 10.0.0.1\r\n"
        b"x-forwarded-proto: http\r\nx-forwarded-host: " + HOST + b"\r\nX-Footbridge-Secret: s3cret\r\n\r\n"
    )


def test_names_in_any_of_several_connection_fields_are_for_this_hop() -> None:
    lines = [(b"connection", b"x-secret"), (b"x-secret", b"1"), (b"connection", b"keep-alive"), (b"x-public", b"2")]
    head = sent(*lines)
    assert b"x-secret" not in head
    assert b"x-public: 2" in head


def test_an_older_server_gets_the_secret_as_a_token() -> None:
    head = sent((b"authorization", b"token mine"), secret=Secret("token", "s3cret"))
    assert b"authorization: token s3cret\r\n" in head
    assert b"mine" not in head
    assert SECRET_HEADER.lower().encode() not in head.lower()


@pytest.mark.parametrize(
    "name",
    [
        b"authorization", b"forwarded", b"x-forwarded-for", b"x-forwarded-anything", b"x-real-ip", b"remote-user",
        b"x-remote-user", b"x-remote-groups", b"proxy-authorization", b"proxy-connection", b"under_score",
        b"remote_user", b"te", b"trailer", b"upgrade", b"keep-alive", b"connection", b"x-footbridge-secret",
        b"X-FORWARDED-FOR", b"Remote_User",
    ],
)  # fmt: skip
def test_a_claim_or_a_field_of_this_hop_does_not_pass(name: bytes) -> None:
    assert b"6.6.6.6" not in sent((name, b"6.6.6.6"))


def test_fields_that_connection_lists_do_not_pass() -> None:
    head = sent((b"x-mine", b"1"), (b"x-yours", b"2"), (b"connection", b"close, X-Mine"))
    assert b"x-mine" not in names(head)
    assert b"x-yours" in names(head)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b"content-length", b"3"), (b"transfer-encoding", b"chunked")], 400),
        ([(b"content-length", b"3"), (b"content-length", b"3")], 400),
        ([(b"content-length", b"+3")], 400),
        ([(b"content-length", b"3, 3")], 400),
        ([(b"content-length", b"\xb2")], 400),
        ([(b"content-length", b"9" * 19)], 400),
        ([(b"transfer-encoding", b"gzip, chunked")], 400),
        ([(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], 400),
        ([(b"transfer-encoding", b"identity")], 400),
        ([(b"expect", b"the-unexpected")], 417),
        ([(b"host", b"other")], 400),
        ([(b"bad name", b"x")], 400),
        ([(b"bad:name", b"x")], 400),
        ([(b"", b"x")], 400),
        ([(b"x", b"a\r\nremote-user: root")], 400),
        ([(b"x", b"a\nb")], 400),
        ([(b"x", b"a\rb")], 400),
        ([(b"x", b"a\0b")], 400),
        ([(b"cookie", b"a=1\r\nremote-user: root")], 400),
        ([(b"x", b"a" * MAX_HEAD_BYTES)], 431),
    ],
)
def test_an_ambiguous_or_hostile_head_is_refused(fields: list[tuple[bytes, bytes]], status: int) -> None:
    with pytest.raises(BadHead) as caught:
        sent(*fields)
    assert caught.value.status == status


def test_a_secret_with_a_line_break_is_refused() -> None:
    with pytest.raises(BadHead):
        sent(secret=Secret("identity", "a\r\nb"))


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.binary(max_size=12),
                st.sampled_from(
                    [b"cookie", b"content-length", b"transfer-encoding", b"Connection", b"x-ok", b"expect"]
                ),
            ),
            st.one_of(st.binary(max_size=30), st.sampled_from([b"chunked", b"5", b"100-continue", b"a=1; portal=2"])),
        ),
        max_size=8,
    )
)
def test_whatever_comes_the_head_holds_one_request_and_one_secret(fields: list[tuple[bytes, bytes]]) -> None:
    try:
        head = sent(*fields, method="POST")
    except BadHead:
        return
    lines = head.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert b"" not in lines[:-2]
    assert not any(set(line) & set(b"\r\n\0") for line in lines)
    lower = [name.lower() for name in names(head)]
    assert lower.count(b"host") == 1
    assert lower.count(b"x-footbridge-secret") == 1
    assert lower.count(b"content-length") + lower.count(b"transfer-encoding") <= 1
    assert not any(line.startswith(b"cookie:") and b"portal" in line for line in lines)


# Path, query, cookies


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"", b""),
        (b"token=x", b""),
        (b"a=1&token=x", b"a=1"),
        (b"token=x&a=%2F&&b=+", b"a=%2F&&b=+"),
        (b"%74%6Fken=x&a", b"a"),
        (b"token", b""),
        (b"tokens=1&mytoken=2&a=token=3", b"tokens=1&mytoken=2&a=token=3"),
        (b"Token=1", b"Token=1"),
    ],
)
def test_only_the_token_parameter_is_taken_out(query: bytes, left: bytes) -> None:
    assert without_token(query) == left


@given(st.lists(st.sampled_from([b"a=1", b"b=%2F", b"", b"token=1", b"c", b"d==", b"x;y", b"%zz=1"]), max_size=6))
def test_the_rest_of_a_query_keeps_its_bytes_and_order(parts: list[bytes]) -> None:
    assert without_token(b"&".join(parts)) == b"&".join(part for part in parts if part != b"token=1")


@pytest.mark.parametrize("path", [b"", b"x", b"*", b"http://h/x", b"/a b", b"/a\r\nb", b"/\x00", b"/\xff", b"/a\tb"])
def test_what_is_no_path_is_refused(path: bytes) -> None:
    with pytest.raises(BadHead):
        request_target(path, b"")


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"a=1; b=2", b"a=1; b=2"),
        (b"footbridge=x", b""),
        (b"a=1; footbridge=x; b=2", b"a=1; b=2"),
        (b"__Host-footbridge=x;a=1", b"a=1"),
        (b"footbridge-entry-0a=x; a=1; __Host-footbridge-entry-0b=y", b"a=1"),
        (b"__host-portal=x; a=1", b"a=1"),
        (b"__Secure-footbridge=x; a=1", b"a=1"),
        (b"portal=1; portal-csrf=2; portal-language=3; _xsrf=4", b"_xsrf=4"),
        (b"a=footbridge=1", b"a=footbridge=1"),
        (b"footbridge", b""),
        (b"a=1;b=2", b"a=1;b=2"),
    ],
)
def test_cookies_of_the_portal_stay_with_the_portal(value: bytes, left: bytes) -> None:
    assert passing_cookies(value) == left


def test_the_first_cookie_of_a_name_counts() -> None:
    assert cookie_value(b"a=0; footbridge=1; footbridge=2", b"footbridge") == "1"
    assert cookie_value(b"xfootbridge=1", b"footbridge") == ""


def test_cookies_are_found_by_how_their_names_begin() -> None:
    assert names_of(b"a=0; n-1=x=1;n-2=; xn-3=2; n-4", b"n-") == ["n-1", "n-2"]


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"a=1", b"a=1"),
        (b"a=1; Path=/x; HttpOnly", b"a=1; Path=/x; HttpOnly"),
        (b"a=1; Domain=example.org; Path=/", b"a=1; Path=/"),
        (b"a=1;domain=.example.org;DOMAIN = x", b"a=1"),
        (b"footbridge=1; Path=/", b""),
        (b"__HOST-Footbridge=1", b""),
        (b"footbridge-entry-0a=1", b""),
        (b"__Host-footbridge-entry-0a=1; Path=/; Secure", b""),
        (b" portal-language=zh", b""),
        (b"=footbridge=1", b""),
        (b"footbridge", b""),
        (b"nameless", b""),
        (b"__Secure-portal=1; Secure", b""),
    ],
)
def test_a_cookie_of_the_server_is_confined(value: bytes, left: bytes) -> None:
    assert confined_cookie(value) == left


PATH = b"/s/abcdefghjkmn/"


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"_xsrf=1; username-host=2", b"_xsrf=1; username-host=2"),
        (b"__Host-portal=x; _xsrf=1", b"_xsrf=1"),
        (b"__Secure-footbridge=x; sso=of-the-site; other=1", b""),
        (b"__Secure-footbridge-entry-0a=x; _xsrf=1", b"_xsrf=1"),
        (b"X_xsrf=1; _XSRF=2", b""),
    ],
)
def test_below_the_portal_only_the_notebooks_own_cookies_pass(value: bytes, left: bytes) -> None:
    assert passing_cookies(value, PATH) == left


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"_xsrf=1", b"_xsrf=1; Path=" + PATH),
        (b"_xsrf=1; Path=/; HttpOnly", b"_xsrf=1; HttpOnly; Path=" + PATH),
        (b"_xsrf=1; Path=" + PATH + b"lab; Domain=example.org", b"_xsrf=1; Path=" + PATH + b"lab"),
        (b"_xsrf=1; Path=" + PATH + b"x; path=/", b"_xsrf=1; Path=" + PATH),
        (b"_xsrf=1; Path=" + PATH + b"../..", b"_xsrf=1; Path=" + PATH),
        (b"_xsrf=1; Path=" + PATH + b"%2e%2e/", b"_xsrf=1; Path=" + PATH),
        (b"_xsrf=1; Path=" + PATH + b".\\.", b"_xsrf=1; Path=" + PATH),
        (b"_xsrf=1; Path=/s/abcdefghjkmn", b"_xsrf=1; Path=" + PATH),
        (b"_xsrf=1; Path=/s/zyxwvutsrqpm/", b"_xsrf=1; Path=" + PATH),
        (b"portal-language=zh; Path=" + PATH, b""),
        (b"anything=1", b""),
    ],
)
def test_below_the_portal_a_cookie_of_the_server_stays_within_its_path(value: bytes, left: bytes) -> None:
    assert confined_cookie(value, PATH) == left


# Answers


def received(
    *fields: tuple[bytes, bytes], status: int = 200, connection: bytes = b"", origin: Origin = ORIGIN
) -> list[tuple[bytes, bytes]]:
    return incoming_response(status, fields, connection=connection, origin=origin, upstream_authority=b"node7:8888")


@pytest.mark.parametrize(
    "name",
    [b"Connection", b"Keep-Alive", b"Transfer-Encoding", b"Upgrade", b"Trailer", b"Proxy-Authenticate", b"Alt-Svc",
     b"Clear-Site-Data", b"Access-Control-Allow-Origin", b"Access-Control-Allow-Credentials", b"X-Listed",
     b"X-Accel-Redirect", b"X-Accel-Expires", b"X-Sendfile", b"X-LIGHTTPD-send-file", b"X-LiteSpeed-Location",
     b"X-Reproxy-URL"],
)  # fmt: skip
def test_what_does_not_concern_the_browser_is_dropped(name: bytes) -> None:
    assert received((name, b"x"), (b"ETag", b"y"), connection=b"x-listed") == [(b"etag", b"y")]


@pytest.mark.parametrize(
    "name",
    [b"Accept-CH", b"Critical-CH", b"NEL", b"Origin-Agent-Cluster", b"Public-Key-Pins", b"Report-To",
     b"Service-Worker-Allowed", b"Set-Login", b"Speculation-Rules", b"Strict-Transport-Security",
     b"Use-As-Dictionary"],
)  # fmt: skip
def test_what_holds_for_a_whole_origin_passes_at_an_address_of_its_own_only(name: bytes) -> None:
    assert received((name, b"x")) == [(name.lower(), b"x")]
    assert received((name, b"x"), connection=name.lower()) == []
    assert received((name, b"x"), origin=Origin("http", HOST, PATH)) == []


@pytest.mark.parametrize("status", [204, 304])
def test_a_length_without_a_body_is_dropped(status: int) -> None:
    assert received((b"Content-Length", b"5"), status=status) == []


@pytest.mark.parametrize(
    ("location", "left"),
    [
        (b"/lab", b"/lab"),
        (b"lab?x=//node7:8888/", b"lab?x=//node7:8888/"),
        (b"http://node7:8888/lab?a=1", b"/lab?a=1"),
        (b"http://NODE7:8888", b"/"),
        (b"//node7:8888/x", b"/x"),
        (b"https://" + HOST + b"/x", b"/x"),
        (b"http://node7:8888//evil.example/x", b"/evil.example/x"),
        (b"http://node7:8888/\\evil.example/x", b"/evil.example/x"),
        (b"http://other:8888/x", b"http://other:8888/x"),
        (b"https://elsewhere.example/x", b"https://elsewhere.example/x"),
        (b"mailto:x", b"mailto:x"),
    ],
)
def test_a_redirect_to_the_inner_address_becomes_relative(location: bytes, left: bytes) -> None:
    assert received((b"Location", location)) == [(b"location", left)]


def test_invented_names_of_fields_do_not_fill_the_memory() -> None:
    known = (headers._request_kinds, headers._response_kinds)
    for number in range(headers._KINDS_KEPT + 1):
        sent((b"x-%d" % number, b""))
        received((b"x-%d" % number, b""))
    assert all(0 < len(kinds) <= headers._KINDS_KEPT for kinds in known)
    sent((b"x" * 65, b""))
    received((b"x" * 65, b""))
    assert not any(b"x" * 65 in kinds for kinds in known)


@pytest.mark.parametrize("framing", [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")])
def test_a_handshake_with_a_body_is_refused(framing: tuple[bytes, bytes]) -> None:
    with pytest.raises(BadHead) as refused:
        outgoing_handshake(
            target=b"/ws", fields=[(b"host", HOST), framing], origin=ORIGIN, client="", secret=IDENTITY, key=b"ours"
        )
    assert refused.value.status == 400


def test_a_handshake_offers_our_key_and_the_browsers_subprotocols() -> None:
    head = outgoing_handshake(
        target=b"/ws",
        fields=[
            (b"host", HOST),
            (b"Sec-WebSocket-Key", b"theirs"),
            (b"sec-websocket-extensions", b"permessage-deflate"),
            (b"sec-websocket-protocol", b"a, b"),
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"origin", b"http://" + HOST),
        ],
        origin=ORIGIN,
        client="10.0.0.1",
        secret=IDENTITY,
        key=b"ours",
        subprotocols=["a", "b"],
    )
    assert head.startswith(b"GET /ws HTTP/1.1\r\n")
    assert head.endswith(
        b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: ours\r\nsec-websocket-protocol: a, b\r\n\r\n"
    )
    assert b"theirs" not in head
    assert b"permessage-deflate" not in head
    assert head.count(b"\r\n\r\n") == 1
