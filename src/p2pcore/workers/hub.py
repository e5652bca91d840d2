"""The hub in a supervisor: carries messages between its workers, and keeps their buckets.

Comes in: frames of workers (frames.py), each with an "op". Goes out: frames to workers. It waits for nobody:
a worker that does not read loses messages, which are counted, and is told later what has changed in buckets.
What a worker subscribed, and what others wait for from it, ends with the worker. Client: hub_client.py.
"""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from p2pcore import limits
from p2pcore.aio.table import is_under
from p2pcore.errors import LimitExceeded
from p2pcore.workers.buckets import Bucket
from p2pcore.workers.descriptors import DescriptorQueue
from p2pcore.workers.frames import FrameConn, Header, encode, pack, unpack

logger = logging.getLogger("p2pcore.workers")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a worker needs to reach the hub.

    Attributes:
        number: of the worker process; none is used twice. hub_fd, links_fd: its ends of two sockets.
    """

    number: int
    hub_fd: int
    links_fd: int


@dataclass(slots=True)
class _Watch:
    """A watch of one worker. `missed`: keys that changed while the worker did not read."""

    bucket: str
    key: str
    missed: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Request:
    """A request that waits for its answer: who asks, under which number, and who was asked."""

    asker: Member
    n: int
    asked: set[Member] = field(default_factory=set)


class Member:
    """One worker process, seen from the hub.

    Attributes:
        number: see Ticket. dropped: messages that it lost, because it read too slowly.
    """

    def __init__(self, hub: Hub, number: int, links: socket.socket) -> None:
        self.number = number
        self.dropped = 0
        self.conn = FrameConn(
            lambda header, data: hub.heard(self, header, data), lambda: hub.left(self), self._catch_up
        )
        self.descriptors = DescriptorQueue(links)
        self.patterns: set[str] = set()
        self.watches: dict[int, _Watch] = {}
        self.asking: dict[int, int] = {}  # numbers of its requests, and of the hub for them
        self.serving: set[int] = set()  # requests that it was asked
        self._value = hub.value

    def offer(self, frame: bytes) -> bool:
        """Sends a message; False: it is lost, because too much waits already."""
        if self.conn.num_queued > limits.HUB_QUEUE_BYTES:
            self.dropped += 1
            return False
        self.conn.send(frame)
        return True

    def reply(self, n: int, data: bytes = b"", **fields: Any) -> None:
        """Answers its frame number `n`."""
        self.conn.send(encode({"op": "reply", "n": n, **fields}, data))

    def reply_full(self, n: int, limit: str, most: int) -> None:
        """Answers its frame number `n`, which asks for one more than `limit` allows."""
        self.reply(n, limit=[limit, most + 1, most])

    def tell_change(self, w: int, changed: dict[str, bytes | None]) -> None:
        """Sends what has changed to its watch `w`; what does not fit is sent when it has read the rest."""
        missed = self.watches[w].missed
        for fields, data in pack(changed.items()):
            if missed or self.conn.num_queued > limits.HUB_QUEUE_BYTES:
                missed.update(dict.fromkeys(fields["keys"]))
            else:
                self.conn.send(encode({"op": "change", "w": w, **fields}, data))
        if len(missed) > limits.HUB_MAX_MISSED:
            logger.warning("worker process %d has not read for too long: its bus is cut", self.number)
            self.conn.close()

    def _catch_up(self) -> None:
        """It reads again: tells it the present state of what has changed meanwhile."""
        for w, watch in list(self.watches.items()):
            if watch.missed:
                missed, watch.missed = watch.missed, {}
                self.tell_change(w, {key: self._value(watch.bucket, key) for key in missed})


Service = Callable[[Member, Header], Header]
"""Answers a frame at once. What it raises is a mistake of ours, and ends the worker's connection."""


class Hub:
    """See above. Its methods are called inside the event loop."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._members: dict[int, Member] = {}
        self._listeners: dict[str, dict[Member, None]] = {}
        self._requests: dict[int, _Request] = {}
        self._request_numbers = itertools.count(1)
        self._buckets: dict[str, Bucket] = {}
        self._watching: dict[str, dict[Member, None]] = {}
        self._services: dict[str, Service] = {}
        self._on_left: list[Callable[[int], None]] = []
        self._dropped = 0
        self._ops: dict[str, Callable[[Member, Header, bytes], None]] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "publish": self._publish,
            "request": self._request,
            "answer": self._answer,
            "forget": self._forget,
            "bucket": self._bucket,
            "put": self._put,
            "swap": self._swap,
            "get": self._get,
            "watch": self._watch,
            "unwatch": self._unwatch,
            "link": self._link,
        }

    @property
    def num_dropped(self) -> int:
        """Messages that were lost because a worker read too slowly."""
        return self._dropped + sum(member.dropped for member in self._members.values())

    @property
    def num_members(self) -> int:
        """Worker processes that are connected."""
        return len(self._members)

    def add_service(self, op: str, service: Service) -> None:
        """Frames with this "op" go to `service`, and what it returns goes back."""
        self._services[op] = service

    def on_left(self, left: Callable[[int], None]) -> None:
        """Calls `left(number)` for each worker process that has ended."""
        self._on_left.append(left)

    async def seat(self) -> tuple[Ticket, list[socket.socket]]:
        """A place for a new worker process.

        Returns: what it must know, and its ends of the sockets, which the caller closes. If nobody has them
            any more, the worker has left.
        """
        number = next(self._numbers)
        hub_ours, hub_theirs = socket.socketpair()
        links_ours, links_theirs = socket.socketpair(type=socket.SOCK_DGRAM)
        member = Member(self, number, links_ours)
        try:
            await member.conn.open(hub_ours)
        except BaseException:
            for each in (hub_theirs, links_ours, links_theirs):
                each.close()
            raise
        self._members[number] = member
        return Ticket(number, hub_theirs.fileno(), links_theirs.fileno()), [
            hub_theirs,
            links_theirs,
        ]

    def close(self) -> None:
        """Cuts off all workers and forgets everything. Idempotent."""
        for member in list(self._members.values()):
            member.conn.close()
        for bucket in self._buckets.values():
            bucket.close()

    # -- workers -------------------------------------------------------------------------------

    def heard(self, member: Member, header: Header, data: bytes) -> None:
        """A frame of a worker."""
        op = header["op"]
        service = self._services.get(op)
        if service is not None:
            answer = service(member, header)
            if "n" in header:
                member.reply(header["n"], **answer)
        else:
            self._ops[op](member, header, data)

    def left(self, member: Member) -> None:
        """A worker has ended. Whoever waits for it alone is told at once."""
        if self._members.pop(member.number, None) is None:
            return
        self._dropped += member.dropped
        member.descriptors.close()
        for pattern in member.patterns:
            _drop(self._listeners, pattern, member)
        for watch in member.watches.values():
            self._stop_watching(watch.bucket, member)
        for number in list(member.asking.values()):
            self._end_request(number)
        for number in list(member.serving):
            self._unanswered(member, number)
        for left in self._on_left:
            left(member.number)

    # -- messages ------------------------------------------------------------------------------

    def _subscribe(self, member: Member, header: Header, data: bytes) -> None:
        pattern = header["pattern"]
        if pattern not in member.patterns and len(member.patterns) >= limits.HUB_MAX_SUBSCRIPTIONS:
            member.reply_full(header["n"], "HUB_MAX_SUBSCRIPTIONS", limits.HUB_MAX_SUBSCRIPTIONS)
            return
        member.patterns.add(pattern)
        self._listeners.setdefault(pattern, {})[member] = None
        member.reply(header["n"])

    def _unsubscribe(self, member: Member, header: Header, data: bytes) -> None:
        member.patterns.discard(header["pattern"])
        _drop(self._listeners, header["pattern"], member)

    def _listening(self, subject: str) -> Iterator[tuple[str, dict[Member, None]]]:
        """The patterns that `subject` fits, and who listens there."""
        for pattern in (subject, f"{subject.rpartition('.')[0]}.*"):
            members = self._listeners.get(pattern)
            if members:
                yield pattern, members

    def _publish(self, member: Member, header: Header, data: bytes) -> None:
        for pattern, members in self._listening(header["subject"]):
            frame = _message(header["subject"], pattern, data)
            for each in members:
                each.offer(frame)

    def _request(self, member: Member, header: Header, data: bytes) -> None:
        number, n = next(self._request_numbers), header["n"]
        request = _Request(member, n)
        is_heard = False
        for pattern, members in self._listening(header["subject"]):
            is_heard = True
            frame = _message(header["subject"], pattern, data, number)
            request.asked.update(each for each in members if each.offer(frame))
        if not is_heard:
            member.reply(n, error="nobody")
        elif not request.asked:
            member.reply(n, error="slow")
        else:
            self._requests[number] = request
            member.asking[n] = number
            for each in request.asked:
                each.serving.add(number)

    def _answer(self, member: Member, header: Header, data: bytes) -> None:
        request = self._end_request(header["r"])
        if request is not None:
            request.asker.reply(request.n, data)

    def _forget(self, member: Member, header: Header, data: bytes) -> None:
        """It does not wait for its request any more."""
        self._end_request(member.asking.get(header["n"], 0))

    def _end_request(self, number: int) -> _Request | None:
        request = self._requests.pop(number, None)
        if request is not None:
            request.asker.asking.pop(request.n, None)
            for each in request.asked:
                each.serving.discard(number)
        return request

    def _unanswered(self, member: Member, number: int) -> None:
        """`member`, which was asked, has left."""
        request = self._requests[number]
        request.asked.discard(member)
        if not request.asked:
            self._end_request(number)
            request.asker.reply(request.n, error="left")

    # -- buckets -------------------------------------------------------------------------------

    def _bucket(self, member: Member, header: Header, data: bytes) -> None:
        name = header["name"]
        bucket = self._buckets.get(name)
        if bucket is None and len(self._buckets) >= limits.HUB_MAX_BUCKETS:
            member.reply_full(header["n"], "HUB_MAX_BUCKETS", limits.HUB_MAX_BUCKETS)
            return
        if bucket is None:
            bucket = self._buckets[name] = Bucket(lambda changed: self._changed(name, changed))
        bucket.set_expiry(header["expiry_s"])  # the last one who says it sets it for all
        member.reply(header["n"])

    def _put(self, member: Member, header: Header, data: bytes) -> None:
        try:
            self._buckets[header["name"]].put(unpack(header, data))
        except LimitExceeded as error:
            member.reply(header["n"], limit=[error.limit, error.used, error.maximum])
        else:
            member.reply(header["n"])

    def _swap(self, member: Member, header: Header, data: bytes) -> None:
        (_, expected), (key, value) = unpack(header, data)
        bucket = self._buckets[header["name"]]
        is_expected = bucket.get(key).get(key) == expected
        try:
            bucket.put([(key, value)] if is_expected else [])
        except LimitExceeded as error:
            member.reply(header["n"], limit=[error.limit, error.used, error.maximum])
        else:
            member.reply(header["n"], is_swapped=is_expected)

    def _get(self, member: Member, header: Header, data: bytes) -> None:
        self._send_entries(member, {"op": "entries", "n": header["n"]}, header)
        member.reply(header["n"])

    def _watch(self, member: Member, header: Header, data: bytes) -> None:
        if len(member.watches) >= limits.HUB_MAX_SUBSCRIPTIONS:
            member.reply_full(header["n"], "HUB_MAX_SUBSCRIPTIONS", limits.HUB_MAX_SUBSCRIPTIONS)
            return
        self._send_entries(member, {"op": "change", "w": header["w"]}, header)
        member.watches[header["w"]] = _Watch(header["name"], header["key"])
        self._watching.setdefault(header["name"], {})[member] = None
        member.reply(header["n"])

    def _send_entries(self, member: Member, head: Header, asked: Header) -> None:
        """Answers, so it is sent whatever waits: a worker asks for few such answers at once."""
        for fields, data in pack(self._buckets[asked["name"]].get(asked["key"]).items()):
            member.conn.send(encode(head | fields, data))

    def _unwatch(self, member: Member, header: Header, data: bytes) -> None:
        watch = member.watches.pop(header["w"], None)
        if watch is not None:
            self._stop_watching(watch.bucket, member)

    def _stop_watching(self, name: str, member: Member) -> None:
        if member.number not in self._members or all(each.bucket != name for each in member.watches.values()):
            _drop(self._watching, name, member)

    def _changed(self, name: str, changed: dict[str, bytes | None]) -> None:
        for member in list(self._watching.get(name, ())):
            for w, watch in list(member.watches.items()):
                if watch.bucket == name:
                    mine = {key: value for key, value in changed.items() if is_under(key, watch.key)}
                    if mine:
                        member.tell_change(w, mine)

    def value(self, name: str, key: str) -> bytes | None:
        """The value of one entry now; None: there is none."""
        return self._buckets[name].get(key).get(key)

    # -- links ---------------------------------------------------------------------------------

    def _link(self, member: Member, header: Header, data: bytes) -> None:
        """Connects two workers with a socket of their own. Each gets its end as a descriptor."""
        other = self._members.get(header["to"])
        if other is None or other is member:
            member.reply(header["n"], error="left")
            return
        one, two = socket.socketpair()
        with one, two:
            is_taken = member.descriptors.send(one, other.number, True) and other.descriptors.send(
                two, member.number, False
            )
        if is_taken:
            member.reply(header["n"])
        else:
            member.reply(header["n"], error="slow")


def _message(subject: str, pattern: str, data: bytes, number: int = 0) -> bytes:
    header: Header = {"op": "message", "subject": subject, "pattern": pattern}
    if number:
        header["r"] = number
    return encode(header, data)


def _drop(table: dict[str, dict[Member, None]], key: str, member: Member) -> None:
    members = table.get(key)
    if members is not None:
        members.pop(member, None)
        if not members:
            del table[key]
