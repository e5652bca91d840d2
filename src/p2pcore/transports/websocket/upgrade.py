"""The HTTP upgrade to WebSocket, both sides, over a mailbox.

Comes in: a mailbox on top of TCP or TLS; from then on it is on top of a WebsocketLayer. A request that is not
an upgrade is answered, and the connection is closed. Extensions and subprotocols are never offered and never
accepted; every origin and every path is accepted. Specification: RFC 6455, section 4.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from p2pcore import options
from p2pcore._fast.chain.websocket import WebsocketLayer
from p2pcore.errors import LocalProtocolError, NegotiationError, RemoteProtocolError, RequestAnswered
from p2pcore.limits import MAX_HTTP_ANSWER_BYTES
from p2pcore.transports.websocket.http import Headers, HttpEnd, HttpRefused, only, tokens

if TYPE_CHECKING:
    from p2pcore._fast.chain.layer import Mailbox

logger = logging.getLogger("p2pcore.websocket")

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = "13"
_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer of an HTTP handler.

    Attributes:
        status: 200..599; headers: pairs of texts, without Connection and Content-Length, which are added.
        body: at most MAX_HTTP_ANSWER_BYTES; not sent to a HEAD request.

    Raises:
        TypeError, ValueError: a field has a wrong type or value.
    """

    status: int = 200
    headers: Headers = ()
    body: bytes = b""

    def __post_init__(self) -> None:
        options.whole("status", self.status, 200, 599)
        options.items("headers", self.headers, "pairs (name, value)", tuple)
        for pair in self.headers:
            if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
                raise TypeError(f"each item of headers must be a pair of texts (name, value), not {pair!r}")
        options.instance("body", self.body, bytes)
        if len(self.body) > MAX_HTTP_ANSWER_BYTES:
            raise ValueError(f"body must be at most {MAX_HTTP_ANSWER_BYTES} bytes, not {len(self.body)}")


HttpHandler = Callable[[str, str, Headers], Awaitable[HttpAnswer]]
"""`await handler(method, target, headers)` for a plain HTTP request; header names are in lower case.

It has the rest of the handshake's time. It gets no CONNECT requests and no bodies of requests.
"""


async def accept_upgrade(mailbox: Mailbox, http_handler: HttpHandler | None = None) -> None:
    """The server's side.

    Args:
        mailbox: nobody has read a byte of the request.
        http_handler: answers requests that are not upgrades; None: answer 404.

    Raises:
        RequestAnswered: a plain request, answered by `http_handler`; NegotiationError: a plain request
            without a handler; RemoteProtocolError: a bad request. Each has been answered, and the connection
            is closed.
        ConnectionClosed: the peer left.
    """
    http = HttpEnd(mailbox, is_client=False)
    try:
        request = await http.read_request()
        if "websocket" not in tokens(request.headers, b"upgrade"):
            kind = RequestAnswered if await _answer(http, request, http_handler) else NegotiationError
            raise kind(f"a plain HTTP request: {_line(request)}")
        key = _checked_key(request, http)
    except HttpRefused as refusal:
        await http.answer(refusal.status, refusal.headers)
        raise
    http.switch(
        [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_token(key))]
    )
    mailbox.insert(WebsocketLayer(is_client=False))


async def request_upgrade(mailbox: Mailbox, authority: str, target: str = "/") -> None:
    """The client's side.

    Args:
        authority: the Host header; target: path and query of the request.

    Raises:
        NegotiationError: the server does not upgrade; RemoteProtocolError: its answer breaks the rules.
        ConnectionClosed: the server left.
    """
    key = base64.b64encode(os.urandom(_KEY_BYTES)).decode()
    headers = [
        ("Host", authority),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", _VERSION),
    ]
    answer = await HttpEnd(mailbox, is_client=True).ask("GET", target, headers)
    if answer.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        raise NegotiationError(
            f"{authority} answered HTTP {status_of(answer)} instead of upgrading to WebSocket"
        )
    _check_answer(answer.headers, key)
    mailbox.insert(WebsocketLayer(is_client=True))


def accept_token(key: str) -> str:
    """The value that proves that the server understood the key (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def status_of(answer: Any) -> str:
    """Status and reason of an answer, for people."""
    reason = ascii(answer.reason.decode("latin-1"))[1:-1]
    return f"{answer.status_code} {reason}".rstrip()


def _checked_key(request: Any, http: HttpEnd) -> str:
    """The key of an upgrade request. Raises HttpRefused: the request breaks the rules."""
    headers = request.headers
    key = only(headers, b"sec-websocket-key")
    if request.method != b"GET" or request.http_version != b"1.1":
        raise _bad(f"a WebSocket upgrade uses GET and HTTP/1.1, not {_line(request)}")
    if only(headers, b"upgrade") is None or "upgrade" not in tokens(headers, b"connection"):
        raise _bad("Upgrade must come once, and Connection must name it")
    if only(headers, b"sec-websocket-version") != _VERSION:
        raise HttpRefused(
            "the WebSocket version is not 13",
            HTTPStatus.UPGRADE_REQUIRED,
            [("Upgrade", "websocket"), ("Sec-WebSocket-Version", _VERSION)],
        )
    if key is None or not _is_key(key):
        raise _bad("Sec-WebSocket-Key must come once, with 16 bytes in base64")
    if http.has_body() or tokens(headers, b"transfer-encoding"):
        raise _bad("a WebSocket upgrade has no body")
    return key


def _bad(text: str) -> HttpRefused:
    return HttpRefused(text, HTTPStatus.BAD_REQUEST)


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def _check_answer(headers: Any, key: str) -> None:
    if tokens(headers, b"upgrade") != ["websocket"] or "upgrade" not in tokens(headers, b"connection"):
        raise RemoteProtocolError("the answer has status 101, but does not upgrade to WebSocket")
    if only(headers, b"sec-websocket-accept") != accept_token(key):
        raise RemoteProtocolError("the answer's Sec-WebSocket-Accept does not belong to our key")
    for name in (b"sec-websocket-extensions", b"sec-websocket-protocol"):
        if tokens(headers, name):
            raise RemoteProtocolError(f"the server chose a {name.decode()} we did not offer")


async def _answer(http: HttpEnd, request: Any, handler: HttpHandler | None) -> bool:
    """Answers a plain request by `handler`; 404 without one, 500 if it fails. Returns: whether it worked."""
    answer: HttpAnswer | None = None
    sent = HttpAnswer(HTTPStatus.NOT_FOUND)
    if handler is not None and request.method != b"CONNECT":  # a 2xx answer to CONNECT would open a tunnel
        answer = await _handled(request, handler)
        sent = answer or HttpAnswer(HTTPStatus.INTERNAL_SERVER_ERROR)
    try:
        await http.answer(sent.status, sent.headers, sent.body)
    except LocalProtocolError as error:
        logger.error("the answer of the HTTP handler to %s cannot be sent: %s", _line(request), error)
        await http.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        return False
    return answer is not None


async def _handled(request: Any, handler: HttpHandler) -> HttpAnswer | None:
    """The handler's answer; None if it failed."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
    try:
        answer = await handler(request.method.decode("latin-1"), request.target.decode("latin-1"), headers)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        logger.exception("the HTTP handler failed at %s", _line(request))  # it was not we who were cancelled
    except Exception:
        logger.exception("the HTTP handler failed at %s", _line(request))
    else:
        if isinstance(answer, HttpAnswer):
            return answer
        kind = type(answer).__name__
        logger.error("the HTTP handler answered %s with an object of type %s", _line(request), kind)
    return None


def _line(request: Any) -> str:
    """Method and target, for people."""
    return ascii(f"{request.method.decode('latin-1')} {request.target.decode('latin-1')}")
