"""HTTP heads, the upgrade to WebSocket in both roles, the tunnel through a proxy, and frames of WebSocket."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from cables import Line, all_of, spoken_to
from promise import check, cut, named, run, same, settle

from p2pcore import errors, limits
from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.chain.websocket import WebsocketLayer
from p2pcore.transports.websocket import upgrade
from p2pcore.transports.websocket.upgrade import HttpAnswer, accept_upgrade, request_upgrade

ERRORS = (
    errors.RemoteProtocolError,
    errors.LimitExceeded,
    errors.NegotiationError,
    errors.ConnectionClosed,
)


async def _server(box: Mailbox) -> None:
    await accept_upgrade(box)


async def _serving(box: Mailbox) -> None:
    async def handler(method: str, target: str, headers: Any) -> HttpAnswer:
        return HttpAnswer(200, [("X-Target", "seen")], method.encode())

    await accept_upgrade(box, handler)


async def _client(box: Mailbox) -> None:
    with patch.object(upgrade, "os", SimpleNamespace(urandom=bytes)):  # a key that a corpus can answer
        await request_upgrade(box, "localhost")


ROLES = (_server, _client, _serving)


async def _upgraded(data: bytes) -> None:
    role = ROLES[data[0] % len(ROLES)]
    outcomes = []
    for pieces, turns in (([data[1:]], False), (cut(data[1:]), True)):
        result, _, sent = await spoken_to(pieces, role, turns=turns)
        check(result is None or isinstance(result, ERRORS), "another error than promised", result)
        outcomes.append("upgraded" if _has_upgraded(result, sent) else named(result))
    # A bad frame right behind the head ends the upgrade itself, if it comes with the head.
    if role is not _client or "upgraded" not in outcomes:
        same(outcomes[0], outcomes[1], "an upgrade depends on how it is cut")


def _has_upgraded(result: Any, sent: bytes) -> bool:
    return result is None or sent.startswith(b"HTTP/1.1 101")


def http(data: bytes) -> None:
    """The first byte chooses the role; the others come from the peer."""
    if data:
        run(_upgraded(data))


async def _framed(pieces: list[bytes], is_client: bool) -> tuple[bytes, str | None, bytes]:
    line = Line()
    box = line.mailbox
    box.insert(WebsocketLayer(is_client))
    for piece in pieces:
        line.deliver(piece)
    held = box.num_held
    check(held <= limits.MAILBOX_BYTES + limits.RECEIVE_BUFFER_BYTES, "a mailbox over its bound", held)
    line.deliver_eof()
    await settle()
    content, error = await all_of(box)
    sent = await line.all_sent()
    await line.finish()
    return content, error, sent


async def _frames(data: bytes) -> None:
    is_client = bool(data[0] & 1)
    whole = await _framed([data[1:]], is_client)
    pieces = await _framed(cut(data[1:]), is_client)
    check(len(whole[0]) <= len(data), "more came out than in", len(whole[0]))
    if is_client:  # what a client sends has random masks
        whole, pieces = (*whole[:2], b""), (*pieces[:2], b"")
    same(whole, pieces, "frames depend on how they are cut")


def websocket(data: bytes) -> None:
    """The first byte chooses the role; the others are the peer's frames."""
    if data:
        run(_frames(data))


TARGETS = {"http": http, "websocket": websocket}
