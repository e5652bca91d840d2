"""A worker's end of the hub in its supervisor.

Comes in: requests of this process, frames of the hub. Goes out: answers, and calls of callbacks on the event
loop. Nothing is sent again, and the end of the supervisor is the end of the hub: then everything fails with
BusDown at once. What waits is bounded by limits.HUB_MAX_ASKING.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import socket
from collections.abc import Callable, Iterable
from typing import Any

from p2pcore import limits
from p2pcore.aio.callbacks import RAISED, Complaints
from p2pcore.aio.deadlines import Deadlines
from p2pcore.errors import BusDown, LimitExceeded, NobodyListens
from p2pcore.workers.frames import FrameConn, Header, encode, pack, unpack

logger = logging.getLogger("p2pcore.workers")

Group = set[asyncio.Future[tuple[Header, bytes]]]
"""What waits for replies together: whoever sets an exception there ends the wait."""
OnMessage = Callable[[str, bytes, "Callable[[bytes], None] | None"], None]
"""Called with a subject, its data, and what sends an answer; None: nobody waits for one."""
OnChange = Callable[[str, bytes | None], None]


class Handle:
    """Ends a subscription, a watch, or a callback."""

    __slots__ = ("_end",)

    def __init__(self, end: Callable[[], None]) -> None:
        self._end: Callable[[], None] | None = end

    def close(self) -> None:
        """Nothing is called any more. Idempotent."""
        end, self._end = self._end, None
        if end is not None:
            end()


class HubClient:
    """See above. Made by `connected`.

    Attributes:
        dropped: answers that were not sent, because too much waited already.
    """

    def __init__(self) -> None:
        self._conn = FrameConn(self._heard, self._ended)
        self._numbers = itertools.count(1)
        self._asking: dict[int, asyncio.Future[tuple[Header, bytes]]] = {}
        self._deadlines = Deadlines(_late)
        self._entries: dict[int, dict[str, bytes]] = {}  # parts of the answers to `get`
        self._subscribed: dict[str, dict[object, OnMessage]] = {}
        self._watches: dict[int, OnChange] = {}
        self._on_down: dict[object, Callable[[], None]] = {}
        self._complaints = Complaints(logger)
        self.dropped = 0

    @classmethod
    async def connected(cls, sock: socket.socket) -> HubClient:
        """A client of the hub at the other end of `sock`, which it owns."""
        client = cls()
        await client._conn.open(sock)
        return client

    @property
    def is_up(self) -> bool:
        """Whether the supervisor is there."""
        return self._conn.is_open

    def on_down(self, call: Callable[[], None]) -> Handle:
        """Calls `call` when the supervisor has gone; it never comes back."""
        token = object()
        self._on_down[token] = call
        return Handle(lambda: _forget(self._on_down, token))

    def close(self) -> None:
        """Cuts the connection. Idempotent."""
        self._conn.close()

    # -- asking --------------------------------------------------------------------------------

    async def ask(
        self, op: str, data: bytes = b"", group: Group | None = None, at: float = math.inf, **fields: Any
    ) -> tuple[Header, bytes]:
        """Sends a frame, and waits for the reply, for as long as the supervisor is there.

        Args:
            group: has the future that this waits for, while it waits.
            at: by when the reply must be here, on the event loop's clock.

        Raises:
            TimeoutError: it is not.
            BusDown: the supervisor has gone, or whoever was asked has.
            NobodyListens: nobody was asked.
            LimitExceeded: the hub is full, or HUB_MAX_ASKING frames wait for their replies.
        """
        await self._room(at)
        n = next(self._numbers)
        answer: asyncio.Future[tuple[Header, bytes]] = asyncio.get_running_loop().create_future()
        self._asking[n] = answer
        if group is not None:
            group.add(answer)
        if at < math.inf:
            self._deadlines.watch(answer, at)
        self._conn.send(encode({"op": op, "n": n, **fields}, data))
        try:
            header, body = await answer
        except BaseException:
            if op == "request":
                self.tell("forget", n=n)
            raise
        finally:
            del self._asking[n]
            self._deadlines.forget(answer)
            entries = self._entries.pop(n, {})
            if group is not None:
                group.discard(answer)
        _check(header)
        return (header | {"entries": entries}, body) if op == "get" else (header, body)

    def tell(self, op: str, data: bytes = b"", **fields: Any) -> None:
        """Sends a frame without a reply. After the end of the supervisor, nothing happens."""
        self._conn.send(encode({"op": op, **fields}, data))

    async def _room(self, at: float = math.inf) -> None:
        """Waits until the supervisor reads. Raises TimeoutError: it has not until `at`."""
        if len(self._asking) >= limits.HUB_MAX_ASKING:
            raise LimitExceeded("HUB_MAX_ASKING", len(self._asking) + 1, limits.HUB_MAX_ASKING)
        if self._conn.is_open and not self._conn.has_room:
            async with asyncio.timeout_at(None if at == math.inf else at):
                await self._conn.room()
        if not self._conn.is_open:
            raise BusDown("the supervisor has gone")

    # -- messages ------------------------------------------------------------------------------

    async def publish(self, subject: str, data: bytes) -> None:
        """Sends a message to all that listen. Waits while the supervisor does not read. Raises BusDown."""
        await self._room()
        self.tell("publish", data, subject=subject)

    async def subscribe(self, pattern: str, deliver: OnMessage, group: Group | None = None) -> Handle:
        """Calls `deliver` with each message that fits `pattern`. Raises BusDown, LimitExceeded."""
        token = object()
        others = self._subscribed.setdefault(pattern, {})
        others[token] = deliver

        def end() -> None:
            others.pop(token, None)
            if not others and self._subscribed.get(pattern) is others:
                del self._subscribed[pattern]
                self.tell("unsubscribe", pattern=pattern)

        try:
            await self.ask("subscribe", group=group, pattern=pattern)
        except BaseException:
            end()
            raise
        return Handle(end)

    # -- buckets -------------------------------------------------------------------------------

    async def put(
        self, name: str, entries: Iterable[tuple[str, bytes | None]], group: Group | None = None
    ) -> None:
        """Writes entries. Returns when the hub has all. Raises BusDown, LimitExceeded."""
        for fields, data in pack(entries):
            await self.ask("put", data, group, name=name, **fields)

    async def swap(
        self, name: str, key: str, expected: bytes | None, value: bytes | None, group: Group | None = None
    ) -> bool:
        """Writes an entry if it is `expected` now. Returns: whether it was. Raises BusDown, LimitExceeded."""
        (fields, data), *_ = pack([("expected", expected), (key, value)])
        header, _ = await self.ask("swap", data, group, name=name, **fields)
        is_swapped: bool = header["is_swapped"]
        return is_swapped

    async def get(self, name: str, key: str, group: Group | None = None) -> dict[str, bytes]:
        """The entry of `key` and those below it. Raises BusDown."""
        header, _ = await self.ask("get", group=group, name=name, key=key)
        entries: dict[str, bytes] = header["entries"]
        return entries

    async def watch(self, name: str, key: str, changed: OnChange, group: Group | None = None) -> Handle:
        """Calls `changed` with the entries of `key` and below, then with each change. Raises BusDown."""
        w = next(self._numbers)
        self._watches[w] = changed

        def end() -> None:
            if self._watches.pop(w, None) is not None:
                self.tell("unwatch", w=w)

        try:
            await self.ask("watch", group=group, name=name, key=key, w=w)
        except BaseException:
            end()
            raise
        return Handle(end)

    # -- frames of the hub ---------------------------------------------------------------------

    def _heard(self, header: Header, data: bytes) -> None:
        op = header["op"]
        if op == "message":
            self._deliver(header, data)
        elif op == "reply":
            answer = self._asking.get(header["n"])
            if answer is not None and not answer.done():
                answer.set_result((header, data))
        elif op == "change":
            for key, value in unpack(header, data):
                changed = self._watches.get(header["w"])
                if changed is not None:
                    self._call("a watch of a bucket", changed, key, value)
        elif op == "entries" and header["n"] in self._asking:
            found = self._entries.setdefault(header["n"], {})
            found.update((key, value) for key, value in unpack(header, data) if value is not None)

    def _deliver(self, header: Header, data: bytes) -> None:
        answer = self._answerer(header["r"]) if "r" in header else None
        for deliver in list(self._subscribed.get(header["pattern"], {}).values()):
            self._call("a subscription", deliver, header["subject"], data, answer)

    def _answerer(self, number: int) -> Callable[[bytes], None]:
        """What answers the request `number`. It never waits and never raises."""

        def answer(data: bytes) -> None:
            if self._conn.num_queued > limits.HUB_QUEUE_BYTES:
                self.dropped += 1
            else:
                self.tell("answer", data, r=number)

        return answer

    def _call(self, what: str, callback: Callable[..., None], *args: Any) -> None:
        try:
            callback(*args)
        except RAISED:
            self._complaints.raised(what)

    def _ended(self) -> None:
        self._subscribed.clear()
        self._watches.clear()
        for answer in self._asking.values():
            if not answer.done():
                answer.set_result(({"error": "down"}, b""))
        told, self._on_down = list(self._on_down.values()), {}
        for call in told:
            self._call("on_down", call)


def _late(answer: asyncio.Future[tuple[Header, bytes]]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


def _forget(table: dict[object, Any], token: object) -> None:
    table.pop(token, None)


_ERRORS: dict[str, Exception] = {
    "nobody": NobodyListens("nobody has subscribed to this subject"),
    "slow": BusDown("everybody who has subscribed to this subject reads too slowly"),
    "left": BusDown("the worker that was asked has ended before the answer"),
    "down": BusDown("the supervisor has gone before the answer"),
}


def _check(header: Header) -> None:
    """Raises what a reply says."""
    if "limit" in header:
        raise LimitExceeded(*header["limit"])
    if "error" in header:
        failure = _ERRORS[header["error"]]
        raise type(failure)(*failure.args)
