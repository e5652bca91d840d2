"""The fixed works whose instructions are counted.

Comes in: an event loop. Goes out: for each work a function that does it n times, and one that cleans up.
Nothing in a work is random, and nothing takes longer the second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gates import codecs, conns, crowds, frames, streams

STREAM = "stream: opened, echo 32B, closed"
CONN = "connection: dialled, accepted, closed"
NEW_PEER = "new peer: identified both ways, echo 32B"
NEW_PEER_TLS = "new peer over tls: identified both ways, echo 32B"
MESSAGE = "message on one of many connections: 32B there and back"
NEW_PEERS = 6
TIMES = 4
"""What gates.counted does in all: N, N and 2N times."""

Run = Callable[[int], None]
Prepared = tuple[Run, Callable[[], None]]
Prepare = Callable[[asyncio.AbstractEventLoop], Prepared]
Start = Callable[[], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Work:
    """One row of instructions.

    Attributes:
        name: of the row. prepare: gives (do it n times, clean up). count: N.
        per: operations in one time. has_primitives: a second row counts libsodium and OpenSSL.
        beside: a work that does more in the same operation: a further row says how much more.
    """

    name: str
    prepare: Prepare
    count: int
    per: int = 1
    has_primitives: bool = False
    beside: str | None = None


def _plain(once: Callable[[], object]) -> Prepare:
    """A work that needs no event loop."""

    def run(n: int) -> None:
        for _ in range(n):
            once()

    return lambda loop: (run, lambda: None)


def _on_loop(start: Start) -> Prepare:
    """A work that runs on the event loop; `start` gives an object with `async once()` and `async close()`."""

    def prepare(loop: asyncio.AbstractEventLoop) -> Prepared:
        subject = loop.run_until_complete(start())

        async def many(n: int) -> None:
            for _ in range(n):
                await subject.once()

        return (
            lambda n: loop.run_until_complete(many(n)),
            lambda: loop.run_until_complete(subject.close()),
        )

    return prepare


async def _opened(make: Callable[[], Any]) -> Any:
    work = make()
    await work.open()
    return work


def _all() -> Iterable[Work]:
    yield Work("multiaddr: text to bytes", _plain(codecs.text_to_bytes), 50, codecs.NUM_ADDRS)
    yield Work("multiaddr: bytes to text", _plain(codecs.bytes_to_text), 50, codecs.NUM_ADDRS)
    yield Work("varint: there and back", _plain(codecs.varints), 50, codecs.NUM_VARINTS)
    yield Work("peer id: from text", _plain(codecs.peer_ids), 50, codecs.NUM_PEERS)
    yield Work("multistream: initiator", _on_loop(frames.Initiator.start), 50)
    yield Work("multistream: responder", _on_loop(frames.Responder.start), 50)
    yield Work("yamux: window update received", _on_loop(frames.Updates.start), 2, frames.NUM_UPDATES)
    for size, text in ((64, "64B"), (1024, "1KiB"), (16384, "16KiB")):
        received = _on_loop(frames.data_frames(size))
        yield Work(f"yamux: data frame {text} received", received, 40, frames.NUM_FRAMES)
    for size, text in ((1024, "1KiB"), (8192, "8KiB")):
        framed = _on_loop(frames.websocket_frames(size))
        yield Work(f"websocket: frame {text} received and sent", framed, 40, frames.NUM_FRAMES)
    for size, text, times in ((1024, "1KiB", 200), (65536, "64KiB", 50)):
        yield Work(f"noise record: {text} sealed and opened", _on_loop(streams.records(size)), times)
        yield Work(f"stream: {text} written and read", _on_loop(streams.one_way(size)), times)
    for size, text in ((64, "64B"), (1024, "1KiB"), (16383, "16KiB")):
        received = _on_loop(frames.messages(size))
        yield Work(f"mplex: message {text} received", received, 40, frames.NUM_FRAMES)
    for size, text, times in ((1024, "1KiB", 200), (65536, "64KiB", 50)):
        yield Work(f"mplex stream: {text} written and read", _on_loop(streams.one_way_mplex(size)), times)
        yield Work(f"private network: {text} sent and received", _on_loop(streams.private(size)), times)
    for size, text, times in ((1024, "1KiB", 200), (65536, "64KiB", 50)):
        sealed = _on_loop(streams.records(size, streams.by_tls))
        yield Work(f"tls record: {text} sealed and opened", sealed, times)
    yield Work("stream: 32B there and back", _on_loop(streams.round_trips), 200)
    yield Work(STREAM, _on_loop(conns.Echoes.start), 60)
    for has_limits, text in ((False, "without limits"), (True, "with limits")):
        opened = _on_loop(streams.openings(has_limits))
        yield Work(f"session: stream opened, echo 32B, closed, {text}", opened, 40)
    yield Work("noise: handshake, both sides", _on_loop(streams.noise_handshakes), 20, 1, True)
    yield Work("tls: handshake, both sides", _on_loop(streams.tls_handshakes), 20, 1, True)
    yield Work(CONN, _on_loop(conns.Connections.start), 20, 1, True)
    for name, kind, times in ((STREAM, conns.Echoes, 60), (CONN, conns.Connections, 20)):
        off = _on_loop(partial(kind.start, metrics=False))
        yield Work(f"{name}, metrics off", off, times, beside=name)
    by_tls = _on_loop(lambda: conns.Connections.start("tls"))
    yield Work("tls connection: dialled, accepted, closed", by_tls, 20, 1, True)
    for name, security in ((NEW_PEER, "noise"), (NEW_PEER_TLS, "tls")):
        peers = _on_loop(partial(_opened, partial(crowds.NewPeers, security, TIMES * NEW_PEERS)))
        yield Work(name, peers, NEW_PEERS, 1, True)
    yield Work(MESSAGE, _on_loop(crowds.Busy.start), 20, crowds.NUM_CONNS)


WORKS = {work.name: work for work in _all()}
