"""What comes before a protocol: multistream-select in both roles, and the first bytes on a shared port."""

from __future__ import annotations

from typing import Any

from cables import spoken_to
from promise import check, cut, run, same

from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.chain.multistream import HEADER
from p2pcore.errors import ConnectionClosed, IncompleteRead, LimitExceeded, NegotiationError
from p2pcore.transports.tcp.shared import PEEK_BYTES, Kind, kind_of
from p2pcore.upgrade import multistream

PROTOCOLS = ("/yamux/1.0.0", "/noise", "/a")
ERRORS = (NegotiationError, LimitExceeded, ConnectionClosed, IncompleteRead)


async def _handle(box: Mailbox) -> str:
    return await multistream.handle(box, PROTOCOLS)


async def _select(box: Mailbox) -> str:
    return await multistream.select(box, PROTOCOLS)


async def _lazy(box: Mailbox) -> bytes:
    multistream.propose(box, PROTOCOLS[0])
    box.write(b"request")
    return await box.read_exactly(1)


ROLES = (_handle, _select, _lazy)


async def _negotiated(data: bytes) -> None:
    role = ROLES[data[0] % len(ROLES)]
    whole = await spoken_to([data[1:]], role, turns=False)
    pieces = await spoken_to(cut(data[1:]), role, turns=True)
    outcomes = []
    for result, rest, sent in (whole, pieces):
        if isinstance(result, Exception):
            check(isinstance(result, ERRORS), "another error than promised", result)
            outcomes.append((type(result).__name__, b"", b""))
        else:
            outcomes.append((result, rest, sent if role is not _handle else b""))
    same(outcomes[0], outcomes[1], "a negotiation depends on how it is cut")


def multistream_select(data: bytes) -> None:
    """The first byte chooses the role; the others come from the peer."""
    if data:
        run(_negotiated(data))


async def _peek(box: Mailbox) -> Any:
    first = await box.peek(PEEK_BYTES)
    return kind_of(first), kind_of(first, True)


def peek(data: bytes) -> None:
    """The kind of a connection on a shared port; no byte of it is lost."""

    async def peeked() -> None:
        for pieces, turns in (([data], False), (cut(data), True)):
            (kind, psk_kind), rest, _ = await spoken_to(pieces, _peek, turns=turns)
            same(rest, data, "peeking has taken bytes")
            same(kind, kind_of(data[:PEEK_BYTES]), "the kind depends on how it is cut")
            check(kind in (None, psk_kind), "a private network has another kind", kind, psk_kind)
            check(kind is not Kind.PLAIN or data.startswith(HEADER[:PEEK_BYTES]), "plain without a header")

    run(peeked())


TARGETS = {"multistream": multistream_select, "peek": peek}
