"""The HTTP upgrade, byte by byte: both roles, each bad head, plain HTTP, bounds."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from _fast.chains import Cable
from _fast.websocket_frames import MASK, frame, frames
from harness import cuts, looped, settle
from p2pcore import limits
from p2pcore.errors import ConnectionClosed, LimitExceeded, NegotiationError, P2PError, RemoteProtocolError
from p2pcore.transports.websocket.upgrade import (
    HttpAnswer,
    accept_token,
    accept_upgrade,
    request_upgrade,
)
from wires import connected

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
GOOD = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(line: str = "GET / HTTP/1.1", body: bytes = b"", **changes: str | None) -> bytes:
    """A good upgrade request with headers changed, or left out where the value is None; - is written as _."""
    headers = GOOD | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None), "", ""]
    return "\r\n".join(lines).encode() + body


async def everything(sock: socket.socket) -> bytes:
    """All the peer gets up to the end of the connection, which it then ends too."""
    out = b""
    while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
        out += data
    sock.close()
    return out


async def answered(raw: bytes, handler: Any = None) -> tuple[bytes, BaseException]:
    """What a server answers to `raw`, up to the end, and the error it reports."""
    async with connected() as (box, peer):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(peer, raw)
        serving = asyncio.ensure_future(accept_upgrade(box, handler))
        answer = await everything(peer)
        with pytest.raises(P2PError) as caught:
            await serving
        return answer, caught.value


def taken_apart(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case), body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *rest = head.decode().split("\r\n")
    assert line.startswith("HTTP/1.1 ")
    headers = [each.split(": ", 1) for each in rest]
    assert len({name.lower() for name, _ in headers}) == len(headers)
    return int(line.split()[1]), {name.lower(): value for name, value in headers}, body


# -- upgrades --------------------------------------------------------------------------------------


def test_the_accept_token_is_that_of_rfc_6455() -> None:
    assert accept_token(KEY) == ACCEPT


@looped
async def test_an_upgrade_cut_at_every_byte_with_a_frame_behind_it() -> None:
    raw = request() + frame(b"early", mask=MASK)
    for chunks in cuts(raw):
        cable = Cable()
        box = cable.mailbox
        serving = asyncio.ensure_future(accept_upgrade(box))
        for chunk in chunks:
            cable.deliver(chunk)
            await settle(2)
        await serving
        status, headers, rest = taken_apart(cable.sent())
        assert (status, rest) == (101, b"")
        assert headers == {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": ACCEPT}
        assert await box.read_exactly(5) == b"early"
        box.write(b"back")
        assert [each.payload for each in frames(cable.sent())] == [b"back"]


@pytest.mark.parametrize(
    "changes",
    [
        {"Origin": "https://anywhere.example"},
        {"Connection": "keep-alive, Upgrade"},
        {"Upgrade": "WebSocket"},
        {"Connection": "UPGRADE"},
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
        {"Sec_WebSocket_Protocol": "chat"},
        {"Cookie": "x" * 2000},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.parametrize("target", ["/", "/any/path?query"])
@looped
async def test_browsers_and_proxies_are_welcome_and_get_no_extension(
    changes: dict[str, str], target: str
) -> None:
    cable = Cable()
    cable.deliver(request(f"GET {target} HTTP/1.1", **changes))
    await accept_upgrade(cable.mailbox)
    status, headers, _ = taken_apart(cable.sent())
    assert status == 101
    assert set(headers) == {"upgrade", "connection", "sec-websocket-accept"}


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x13/multistream/1.0.0\n", 400),
        (b"hello\r\n\r\n", 400),
        (request("GET / HTTP/1.0"), 400),
        (request("GET / HTTP/2.0"), 400),
        (request("GET / HTTP/9.9"), 400),
        (request("POST / HTTP/1.1"), 400),
        (request("get / HTTP/1.1"), 400),
        (request(Host=None), 400),
        (request(Connection=None), 400),
        (request(Connection="close"), 400),
        (request(Upgrade="websocket\r\nUpgrade: websocket"), 400),
        (request(Sec_WebSocket_Key=None), 400),
        (request(Sec_WebSocket_Key=f"{KEY}\r\nSec-WebSocket-Key: {KEY}"), 400),
        (request(Sec_WebSocket_Key=""), 400),
        (request(Sec_WebSocket_Key="c2hvcnQ="), 400),
        (request(Sec_WebSocket_Key="!!!!!!!!!!!!!!!!!!!!!!=="), 400),
        (request(Sec_WebSocket_Version="8"), 426),
        (request(Sec_WebSocket_Version=None), 426),
        (request(Sec_WebSocket_Version="13\r\nSec-WebSocket-Version: 13"), 426),
        (request(Content_Length="3", body=b"abc"), 400),
        (request(Transfer_Encoding="chunked", body=b"0\r\n\r\n"), 400),
        (request(**{"Bad Name": "x"}), 400),
        (request(X="a" * limits.MAX_HTTP_HEAD_BYTES), 431),
        (request(**{f"X{i}": "1" for i in range(limits.MAX_HTTP_HEADERS)}), 431),
    ],
)
@looped
async def test_bad_upgrades_are_answered_and_closed(raw: bytes, status: int) -> None:
    answer, error = await answered(raw)
    got, headers, body = taken_apart(answer)
    assert (got, body) == (status, b"")
    assert (headers["content-length"], headers["connection"].lower()) == ("0", "close")
    assert isinstance(error, RemoteProtocolError)
    assert ("sec-websocket-version" in headers) is (status == 426)
    if status == 426:
        assert headers["sec-websocket-version"] == "13"


@looped
async def test_an_http_head_has_a_bound_however_slowly_it_comes() -> None:
    cable = Cable()
    serving = asyncio.ensure_future(accept_upgrade(cable.mailbox))
    cable.deliver(b"GET / HTTP/1.1\r\n")
    fed = 0
    while not serving.done() and not cable.eof_written:
        cable.deliver(b"X: " + bytes([97]) * 60 + b"\r\n")
        fed += 65
        assert fed < 2 * limits.MAX_HTTP_HEAD_BYTES
        await settle(2)
    assert taken_apart(cable.sent())[0] == 431
    cable.deliver_eof()
    with pytest.raises(RemoteProtocolError):
        await serving


@looped
async def test_a_peer_that_leaves_within_its_request_is_a_closed_connection() -> None:
    for chunk in (b"", b"GET / HT", request()[:-1]):
        cable = Cable()
        cable.deliver(chunk) if chunk else None
        cable.deliver_eof()
        with pytest.raises(ConnectionClosed):
            await accept_upgrade(cable.mailbox)


# -- plain HTTP ------------------------------------------------------------------------------------

PLAIN = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n" + bytes(100_000),
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
]


@pytest.mark.parametrize("raw", PLAIN, ids=lambda raw: raw[:12].decode())
@looped
async def test_plain_http_is_answered_404_without_a_body(raw: bytes) -> None:
    answer, error = await answered(raw)
    status, headers, body = taken_apart(answer)
    assert (status, headers, body) == (404, {"connection": "close", "content-length": "0"}, b"")
    assert isinstance(error, NegotiationError)
    assert raw.split()[0].decode() in str(error)


@pytest.mark.parametrize("raw", PLAIN, ids=lambda raw: raw[:12].decode())
@looped
async def test_plain_http_goes_to_the_handler(raw: bytes) -> None:
    seen: list[tuple[str, str, Sequence[tuple[str, str]]]] = []

    async def handler(method: str, target: str, headers: Sequence[tuple[str, str]]) -> HttpAnswer:
        seen.append((method, target, headers))
        return HttpAnswer(200, [("Content-Type", "text/plain"), ("Content-Length", "7")], b"all well")

    answer, error = await answered(raw, handler)
    assert isinstance(error, NegotiationError)
    status, headers, body = taken_apart(answer)
    if raw.startswith(b"CONNECT"):  # nobody tunnels here
        assert (status, seen) == (404, [])
        return
    assert (status, headers["content-type"], headers["content-length"]) == (200, "text/plain", "8")
    assert body == (b"" if raw.startswith(b"HEAD") else b"all well")
    [(method, target, got)] = seen
    assert f"{method} {target}".encode() == b" ".join(raw.split(b" ")[:2])
    assert ("host", "x") in got or b"1.0" in raw


@pytest.mark.parametrize(
    "answer",
    [
        HttpAnswer(headers=[("bad name", "x")]),
        HttpAnswer(headers=[("X", "split\r\nSet-Cookie: evil")]),
        "not an answer",
        None,
        SimpleNamespace(status=200, headers=(), body=b""),
        RuntimeError("the handler's fault"),
        asyncio.CancelledError("the handler's own"),
    ],
    ids=["bad header", "header injection", "text", "none", "looks like one", "raises", "cancels itself"],
)
@looped
async def test_a_failing_handler_is_a_500_and_says_nothing_to_the_peer(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(*_: Any) -> HttpAnswer:
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]

    raw, error = await answered(PLAIN[0], handler)
    status, headers, body = taken_apart(raw)
    assert (status, headers, body) == (500, {"connection": "close", "content-length": "0"}, b"")
    assert isinstance(error, NegotiationError)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelname == "ERROR"


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ((200, b"x"), TypeError, "headers must be a list of pairs"),
        ((200, {"X": "y"}), TypeError, "headers must be a list of pairs"),
        ((200, ["X: y"]), TypeError, "each item of headers"),
        ((200, [("X", b"y")]), TypeError, "each item of headers"),
        ((200, [("X",)]), TypeError, "each item of headers"),
        ((200, (), "x"), TypeError, "body must be a bytes"),
        (("200",), TypeError, "status must be a whole number"),
        ((99,), ValueError, "status must be a whole number from 200 to 599"),
        ((200, (), bytes(limits.MAX_HTTP_ANSWER_BYTES + 1)), ValueError, "body must be at most 262144 bytes"),
    ],
)
def test_an_answer_of_wrong_types_is_refused_when_it_is_made(
    fields: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        HttpAnswer(*fields)


@looped
async def test_a_handler_whose_time_is_over_is_cancelled_and_that_is_not_its_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(*_: Any) -> HttpAnswer:
        await asyncio.Event().wait()
        raise AssertionError

    async with connected() as (box, peer):
        await asyncio.get_running_loop().sock_sendall(peer, PLAIN[0])
        serving = asyncio.ensure_future(accept_upgrade(box, handler))
        await settle(20)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
    assert not caplog.records


@pytest.mark.parametrize("status", [204, 304])
@looped
async def test_an_answer_that_has_no_body_gets_none(status: int) -> None:
    async def handler(*_: Any) -> HttpAnswer:
        return HttpAnswer(status, body=b"ignored")

    raw, _ = await answered(PLAIN[0], handler)
    assert taken_apart(raw) == (status, {"connection": "close"}, b"")


@looped
async def test_the_longest_answer_arrives_whole_although_the_peer_has_ended_its_half() -> None:
    body = bytes(range(256)) * (limits.MAX_HTTP_ANSWER_BYTES // 256)

    async def handler(*_: Any) -> HttpAnswer:
        return HttpAnswer(body=body)

    async with connected() as (box, peer):
        await asyncio.get_running_loop().sock_sendall(peer, PLAIN[0])
        peer.shutdown(socket.SHUT_WR)
        serving = asyncio.ensure_future(accept_upgrade(box, handler))
        await settle(20)  # all of it is queued before any is read
        assert not serving.done()
        assert taken_apart(await everything(peer))[2] == body
        with pytest.raises(NegotiationError):
            await serving


# -- the client's side -------------------------------------------------------------------------------


def answer_to(raw: bytes, **changes: str | None) -> bytes:
    """A good answer to the request `raw`, with headers changed."""
    key = taken_apart(b"HTTP/1.1 000\r\n" + raw.split(b"\r\n", 1)[1])[1]["sec-websocket-key"]
    headers: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept_token(key),
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode()


async def asked(cable: Cable, target: str = "/") -> tuple[asyncio.Task[None], bytes]:
    """A client that has sent its request, and the request."""
    asking = asyncio.ensure_future(request_upgrade(cable.mailbox, "example.com:4001", target))
    await settle()
    return asking, cable.sent()


@looped
async def test_the_request_is_what_rfc_6455_asks_for_and_offers_nothing() -> None:
    keys = set()
    for target in ("/", "/path?query"):
        cable = Cable()
        asking, raw = await asked(cable, target)
        line, rest = raw.split(b"\r\n", 1)
        assert line == f"GET {target} HTTP/1.1".encode()
        headers = taken_apart(b"HTTP/1.1 000\r\n" + rest)[1]
        key = headers.pop("sec-websocket-key")
        assert len(base64.b64decode(key, validate=True)) == 16
        assert headers == {
            "host": "example.com:4001",
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-version": "13",
        }
        keys.add(key)
        asking.cancel()
    assert len(keys) == 2


@looped
async def test_an_answer_cut_at_every_byte_with_a_frame_behind_it() -> None:
    length = len(answer_to((await asked(Cable()))[1]) + frame(b"early"))
    for sizes in cuts(bytes(length)):
        cable = Cable()
        asking, raw = await asked(cable)
        answer = answer_to(raw) + frame(b"early")
        for size in sizes:
            cable.deliver(answer[: len(size)])
            answer = answer[len(size) :]
            await settle(2)
        await asking
        assert await cable.mailbox.read_exactly(5) == b"early"
        cable.mailbox.write(b"back")
        [sent] = frames(cable.sent())
        assert (sent.payload, sent.mask is not None) == (b"back", True)


@pytest.mark.parametrize(
    "changes",
    [
        {"Sec_WebSocket_Accept": ACCEPT},
        {"Sec_WebSocket_Accept": None},
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Connection": None},
        {"Connection": "keep-alive"},
        {"Sec_WebSocket_Extensions": "permessage-deflate"},
        {"Sec_WebSocket_Protocol": "chat"},
        {"X": "a" * limits.MAX_HTTP_HEAD_BYTES},
        {f"X{i}": "1" for i in range(limits.MAX_HTTP_HEADERS)},
    ],
    ids=lambda changes: " ".join(map(str, next(iter(changes.items()))))[:40],
)
@looped
async def test_a_bad_answer_is_an_error(changes: dict[str, str | None]) -> None:
    cable = Cable()
    asking, raw = await asked(cable)
    cable.deliver(answer_to(raw, **changes))
    with pytest.raises(RemoteProtocolError):
        await asking


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"HTTP/1.0 502 Bad \xfcGateway\r\n\r\n",
    ],
)
@looped
async def test_another_status_than_101_is_named_and_redirects_are_not_followed(answer: bytes) -> None:
    cable = Cable()
    asking, _ = await asked(cable)
    cable.deliver(answer)
    with pytest.raises(NegotiationError, match=f"HTTP {answer.split()[1].decode()}"):
        await asking
    assert cable.sent() == b""


@looped
async def test_interim_answers_are_passed_over_and_bounded() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    cable = Cable()
    asking, raw = await asked(cable)
    cable.deliver(interim * limits.MAX_HTTP_INTERIM_ANSWERS + answer_to(raw))
    await asking
    cable = Cable()
    asking, raw = await asked(cable)
    cable.deliver(interim * (limits.MAX_HTTP_INTERIM_ANSWERS + 1) + answer_to(raw))
    with pytest.raises(LimitExceeded):
        await asking


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 101 Swi", b"SSH-2.0-OpenSSH\r\n", b"\x15\x03\x01\x00\x02\x02\x46"]
)
@looped
async def test_what_is_no_http_at_all_is_an_error(answer: bytes) -> None:
    cable = Cable()
    asking, _ = await asked(cable)
    cable.deliver(answer) if answer else None
    cable.deliver_eof()
    with pytest.raises((RemoteProtocolError, ConnectionClosed)):
        await asking


# -- anything ----------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"HTTP/1.1 101 X\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"Host: x\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n",
        b"\n",
        b"\x00",
        request(),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(WORDS, st.binary(max_size=20)), max_size=10), st.integers(1, 400), st.booleans())
@looped
async def test_whatever_a_peer_sends_ends_in_a_typed_error_or_a_websocket(
    pieces: list[bytes], size: int, is_client: bool
) -> None:
    cable = Cable()
    box = cable.mailbox
    job = request_upgrade(box, "x") if is_client else accept_upgrade(box)
    running = asyncio.ensure_future(job)
    raw = b"".join(pieces)
    for at in range(0, len(raw), size):
        cable.deliver(raw[at : at + size])
        await settle(2)
    cable.deliver_eof()
    try:
        await running
    except (RemoteProtocolError, LimitExceeded, NegotiationError, ConnectionClosed):
        pass
