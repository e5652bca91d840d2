"""The messages of calls: heads of requests, and answers however they are cut."""

from __future__ import annotations

from typing import Any

from promise import cut, named, run, same, tried

from p2pcore.errors import IncompleteRead, LimitExceeded, RemoteProtocolError, RpcError
from p2pcore.rpc import wire

MOST = 256
ERRORS = (RpcError, RemoteProtocolError, LimitExceeded, IncompleteRead)


class Pieces:
    """A stream that has `pieces`, and then ends."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces[::-1]
        self._held = b""

    async def read_exactly(self, n: int, most: int = MOST) -> bytes:
        while len(self._held) < n and self._pieces:
            self._held += self._pieces.pop()
        if len(self._held) < n:
            raise IncompleteRead(self._held, n)
        got, self._held = self._held[:n], self._held[n:]
        return got


async def _answers(pieces: list[bytes]) -> list[Any]:
    """The answers of a stream up to its end or the first error."""
    stream: Any = Pieces(pieces)
    found: list[Any] = []
    try:
        while True:
            found.append(await wire.read_answer(stream, MOST))
    except ERRORS as error:
        return [*found, named(error), str(error)]


def _request(data: bytes) -> None:
    head = data[: wire.REQUEST.size]
    if len(head) == wire.REQUEST.size:
        found = tried(lambda: wire.unpack_request_head(head), RemoteProtocolError)
        if found is not None:
            name_size, left_s, size = found
            left_ms = 0 if left_s is None else round(left_s * 1000)
            same(wire.REQUEST.pack(0, name_size, left_ms, size), head, "a head is read as another one")


def rpc(data: bytes) -> None:
    """A request's head, and the answers in the same bytes."""
    _request(data)
    same(run(_answers([data])), run(_answers(cut(data))), "answers depend on how they are cut")


TARGETS = {"rpc": rpc}
