"""A watch of a bucket: what a JetStream consumer delivers, as changes of a table.

Comes in: messages of a push consumer that begins with the last one of each subject. Goes out: each change,
and, when a consumer had to be made anew, the difference. It remembers the keys, and a hash of each value.
https://docs.nats.io/nats-concepts/jetstream/consumers
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from typing import TYPE_CHECKING, Any

from p2pcore import limits
from p2pcore.errors import BusDown
from p2pcore.fleet.callback import Callback

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription as NatsSubscription

    from p2pcore.fleet.nats_link import Link

_NS = 1_000_000_000
_DELETED = ("KV-Operation", "Nats-Marker-Reason")
"""A message with one of these headers says that the entry is gone: deleted by a process, expired."""


def is_deleted(headers: dict[str, str] | None) -> bool:
    """Whether the message with these headers deletes the entry of its subject."""
    return headers is not None and any(name in headers for name in _DELETED)


def says_deleted(head: str) -> bool:
    """The same of headers that were not parsed."""
    names = (line.partition(":")[0] for line in head.splitlines())
    return any(name in _DELETED for name in names)


class Watch(Callback):
    """A watch, over all consumers that it needs in its life.

    Args:
        stream: of the bucket. prefix: what stands before a key in a subject. subject: the key.
    """

    __slots__ = ("_consumer", "_known", "prefix", "stream")

    def __init__(self, stream: str, prefix: str, key: str, changed: Any) -> None:
        super().__init__(key, changed)
        self.stream = stream
        self.prefix = prefix
        self._known: dict[str, int] = {}
        self._consumer: _Consumer | None = None

    async def load(self, link: Link) -> None:
        """Makes a consumer. Returns when all entries have been told that differ from what was told before.

        Raises: BusDown; BusError.
        """
        for _ in range(limits.BUS_WATCH_ATTEMPTS):
            if self._consumer is not None:
                await self._consumer.close()
            self._consumer = consumer = _Consumer(self, link)
            if await consumer.start():
                return
        raise BusDown(f"NATS sends no entries of {self.stream} to a watch")

    def needs_load(self) -> bool:
        """Whether messages are missing, or the consumer does not live any more."""
        return self._consumer is None or self._consumer.is_broken()

    async def end(self) -> None:
        """Lets go of the consumer. Call `close` before."""
        if self._consumer is not None:
            await self._consumer.close()
            self._consumer = None

    def tell(self, key: str, value: bytes | None) -> None:
        """Tells an entry, if that changes it."""
        now = None if value is None else hash(value)
        if self._known.get(key) == now:
            return
        if now is None:
            del self._known[key]
        else:
            self._known[key] = now
        self(key, value)

    def tell_missing(self, seen: set[str]) -> None:
        """Tells that all other entries are gone."""
        for key in self._known.keys() - seen:
            self.tell(key, None)


class _Consumer:
    """A push consumer without acknowledgements, which is broken once a message is missing."""

    def __init__(self, watch: Watch, link: Link) -> None:
        self._watch = watch
        self._link = link
        self._sub: NatsSubscription | None = None
        self._name = ""
        self._next = 1
        self._is_broken = False
        self._seen: set[str] | None = set()  # until all that is there has been told
        self._loaded: Future[None] = asyncio.get_running_loop().create_future()
        self._heard_at = asyncio.get_running_loop().time()

    async def start(self) -> bool:
        """Returns when all that is there has been told; False: a message is missing, or none comes."""
        inbox = self._link.new_inbox()
        self._sub = await self._link.listen(inbox, self._take)
        self._name = inbox.rpartition(".")[2]
        api = f"CONSUMER.CREATE.{self._watch.stream}.{self._name}"
        answer = await self._link.jetstream(api, self._request(inbox))
        if not answer.get("num_pending"):
            self._all_seen()
        either: list[Future[Any]] = [self._loaded, self._link.lost]
        while not self._loaded.done():
            before = self._next
            await asyncio.wait(either, timeout=limits.BUS_HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if self._link.lost.done():
                raise BusDown(f"NATS went away before a watch was complete: {self._link.reason}")
            if self._next == before and not self._loaded.done():
                if self._is_broken or not await self._is_all_seen():
                    return False
                self._all_seen()
        return True

    async def _is_all_seen(self) -> bool:
        """Asks: what was pending may have gone meanwhile, and then no last message comes."""
        info = await self._link.jetstream(f"CONSUMER.INFO.{self._watch.stream}.{self._name}", {})
        num_told: int = info["delivered"]["consumer_seq"]
        return num_told == self._next - 1 and not info["num_pending"]

    def _request(self, inbox: str) -> dict[str, Any]:
        subject = self._watch.prefix + self._watch.subject
        config = {
            "name": self._name,
            "deliver_subject": inbox,
            "deliver_policy": "last_per_subject",
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subjects": [subject, f"{subject}.>"],
            "flow_control": True,
            "idle_heartbeat": int(limits.BUS_HEARTBEAT_S * _NS),
            "inactive_threshold": int(limits.BUS_CONSUMER_EXPIRY_S * _NS),
            "mem_storage": True,
            "num_replicas": 1,
        }
        return {"stream_name": self._watch.stream, "config": config}

    async def close(self) -> None:
        """The server ends it too, at once if it hears us. Idempotent."""
        self._is_broken = True
        if self._sub is not None:
            await self._link.leave(self._sub)
        if self._name and not self._link.lost.done():
            await self._link.send(f"$JS.API.CONSUMER.DELETE.{self._watch.stream}.{self._name}", b"")
        self._sub, self._name = None, ""

    def is_broken(self) -> bool:
        silent_s = asyncio.get_running_loop().time() - self._heard_at
        return self._is_broken or silent_s > limits.BUS_HEARTBEAT_S * limits.BUS_MAX_HEARTBEATS_MISSED

    async def _take(self, msg: Msg) -> None:
        if self._is_broken:
            return
        self._heard_at = asyncio.get_running_loop().time()
        headers = msg.headers
        if headers is not None and headers.get("Status") == "100":
            await self._control(msg, headers)
            return
        seq, pending = _place(msg.reply)
        if seq != self._next:
            self._is_broken = True
            return
        self._next += 1
        key = msg.subject[len(self._watch.prefix) :]
        value = None if is_deleted(headers) else msg.data
        if self._seen is not None and value is not None:
            self._seen.add(key)
        self._watch.tell(key, value)
        if pending == 0:
            self._all_seen()

    async def _control(self, msg: Msg, headers: dict[str, str]) -> None:
        """Flow control, which wants an answer once all before it was told; heartbeats, which count."""
        if not headers.get("Description", "").startswith("Idle"):
            await self._link.send(msg.reply, b"")
        elif (stalled := headers.get("Nats-Consumer-Stalled")) is not None:
            await self._link.send(stalled, b"")
        elif int(headers.get("Nats-Last-Consumer", self._next - 1)) != self._next - 1:
            self._is_broken = True

    def _all_seen(self) -> None:
        if self._seen is not None:
            seen, self._seen = self._seen, None
            self._watch.tell_missing(seen)
            self._loaded.set_result(None)


def _place(reply: str) -> tuple[int, int]:
    """The number of a message in its consumer, and how many are still pending.

    Source: https://docs.nats.io/reference/reference-protocols/nats_api_reference ($JS.ACK, with and without
    a domain).
    """
    words = reply.split(".")
    shift = 2 if len(words) >= 11 else 0
    return int(words[6 + shift]), int(words[8 + shift])
