"""A bucket in NATS: a stream of JetStream that keeps the last message of each subject, as NATS's own buckets.

Comes in: keys and values. Goes out: the same, and changes. Many entries travel as one batch with one
acknowledgement, which counts them. `nats kv` shows the buckets. https://docs.nats.io/nats-concepts/jetstream/key-value-store
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
from asyncio import Future
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from p2pcore import limits, options
from p2pcore.errors import BusDown, BusError, NobodyListens
from p2pcore.fleet import names
from p2pcore.fleet.bus import Subscription
from p2pcore.fleet.nats_link import JetStreamError, Link, Message
from p2pcore.fleet.nats_watch import Watch, is_deleted, says_deleted

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_NS = 1_000_000_000
_NAME_IN_USE = 10058
_NO_MESSAGE = 10037
_WRONG_LAST = 10071
_DELETE = {"KV-Operation": "PURGE"}
"""Headers of a message that deletes an entry in files. It stays: a server that has forgotten it, and is
killed, finds the entry again. What the limit of a subject removes is noted in no file, so a server that
builds its index anew finds each older message of a key whose newest one is gone: by a Nats-TTL, a marker TTL
or a purge alike (seen with 2.15.2; https://github.com/nats-io/nats-server/issues/8505)."""
_DELETE_IN_MEMORY = _DELETE | {"Nats-TTL": f"{limits.BUS_MARKER_S:.0f}s"}
"""The same in memory: the server forgets it soon, and tells no further marker."""
_START, _APPEND, _COMMIT = 0, 1, 2


class Links(Protocol):
    """What a bucket needs of its bus."""

    def link(self) -> Link:
        """The connection. Raises: BusDown: there is none."""

    async def add_watch(self, watch: Watch) -> None:
        """Loads a watch, and again whenever it needs that. Raises: BusDown; BusError."""

    def drop_watch(self, watch: Watch) -> None:
        """Ends a watch that was closed."""


class NatsBucket:
    """A `Bucket` of a `NatsBus`, which makes it."""

    def __init__(self, bus: Links, name: str, expiry_s: float | None, replicas: int) -> None:
        self._bus = bus
        self._name = name
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._replicas = replicas
        self.expiry_s = expiry_s

    async def put(self, entries: Mapping[str, bytes | None]) -> None:
        """See `Bucket`. Raises also: BusError: the engine refuses them, and says why."""
        names.entries(entries)
        for part in _parts(entries):
            await self._put(part)

    async def get(self, key: str) -> dict[str, bytes]:
        """See `Bucket`."""
        names.key(key)
        link = self._bus.link()
        try:
            found: dict[str, bytes] | None = await link.collect(
                self._stream, self._ask_of(link, key), self._collector(), limits.BUS_TIMEOUT_S
            )
        except TimeoutError as error:
            raise BusDown(f"NATS does not answer: {error}") from error
        except NobodyListens:
            await self.ensure(link)
            return {}
        return await self._get_by_watch(link, key) if found is None else found

    async def watch(self, key: str, changed: Callable[[str, bytes | None], None]) -> Subscription:
        """See `Bucket`. A watch keeps about 200 bytes an entry."""
        names.key(key)
        options.function("changed", changed)
        watch = Watch(self._stream, self._prefix, key, changed)
        await self._bus.add_watch(watch)
        return _Watching(self._bus, watch)

    async def ensure(self, link: Link) -> None:
        """Makes the stream, or gives it the settings of this process. Raises: BusDown; BusError."""
        try:
            await link.jetstream(f"STREAM.CREATE.{self._stream}", self._config())
        except JetStreamError as error:
            if error.code != _NAME_IN_USE:
                raise
            await link.jetstream(f"STREAM.UPDATE.{self._stream}", self._config())

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": self._stream,
            "description": "a bucket of p2pcore",
            "subjects": [f"{self._prefix}>"],
            "max_msgs_per_subject": 1,
            "discard": "new",
            "storage": "file" if self.expiry_s is None else "memory",
            "num_replicas": self._replicas,
            "allow_direct": True,
            "allow_msg_ttl": True,
            "allow_rollup_hdrs": True,
            "allow_batched": True,
            "duplicate_window": _NS,  # no message has an id
        }
        if self.expiry_s is not None:
            config["max_age"] = int(self.expiry_s * _NS)
            config["subject_delete_marker_ttl"] = int(limits.BUS_MARKER_S * _NS)
        return config

    # -- put -----------------------------------------------------------------------------------

    async def _put(self, entries: list[tuple[str, bytes | None]]) -> None:
        """Writes entries of one batch. It may do so twice, if the first time failed in the middle."""
        for attempt in itertools.count(1):
            link = self._bus.link()
            try:
                num_stored = await link.collect(
                    self._stream, self._batch_of(link, entries), _acknowledged, limits.BUS_TIMEOUT_S
                )
            except TimeoutError as error:
                raise BusDown(f"NATS does not answer: {error}") from error
            except NobodyListens as error:
                failure = BusError(f"the stream {self._stream} is not there: {error}")
                await self.ensure(link)
            except JetStreamError as error:
                failure = error
            else:
                if num_stored == len(entries):
                    return
                failure = BusError(f"NATS stored {num_stored} of {len(entries)} entries")
            if attempt == limits.BUS_PUT_ATTEMPTS:
                try:
                    raise failure
                finally:
                    del failure  # else it keeps itself alive by its traceback
            await asyncio.sleep(random.uniform(0.5, 1) * limits.BUS_RETRY_MIN_S * 2**attempt)

    def _batch_of(self, link: Link, entries: list[tuple[str, bytes | None]]) -> Callable[[str], Any]:
        """Sends the entries. One alone is a plain message; several are a batch, which the server counts.

        Source: nats-architecture-and-design, ADR-50, fast ingest: the subject for answers is
        <inbox>.<batch>.<flow>.<on a gap>.<number>.<operation>.$FI
        """

        async def send(inbox: str) -> None:
            await link.send_all(self._messages(entries, inbox))

        return send

    def _messages(self, entries: list[tuple[str, bytes | None]], inbox: str) -> Iterator[Message]:
        batch = inbox.replace(".", "")[-limits.BUS_MAX_BATCH_ID_CHARS :]
        head = f"{inbox}.{batch}.{limits.BUS_MAX_BATCH}.fail."
        last = len(entries)
        delete = _DELETE if self.expiry_s is None else _DELETE_IN_MEMORY
        for number, (key, value) in enumerate(entries, 1):
            operation = _START if number == 1 else _COMMIT if number == last else _APPEND
            reply = f"{head}{number}.{operation}.$FI" if last > 1 else inbox
            if value is None:
                yield self._prefix + key, b"", reply, delete
            else:
                yield self._prefix + key, value, reply, None

    # -- swap ----------------------------------------------------------------------------------

    async def swap(self, key: str, expected: bytes | None, value: bytes | None) -> bool:
        """See `Bucket`. The leader of the stream is asked for the last message, and compares its number."""
        names.swap(key, expected, value)
        link = self._bus.link()
        found, last = await self._last(link, key)
        if found != expected:
            return False
        headers = {"Nats-Expected-Last-Subject-Sequence": str(last)}
        if value is None:
            headers |= _DELETE if self.expiry_s is None else _DELETE_IN_MEMORY

        async def send(inbox: str) -> None:
            await link.send(self._prefix + key, value or b"", inbox, headers)

        try:
            await link.collect(self._stream, send, _acknowledged, limits.BUS_TIMEOUT_S)
        except JetStreamError as error:
            if error.code != _WRONG_LAST:
                raise
            return False
        except (TimeoutError, NobodyListens) as error:
            raise BusDown(f"NATS does not answer: {error}") from error
        return True

    async def _last(self, link: Link, key: str) -> tuple[bytes | None, int]:
        """The entry of `key`, and the number of its last message; 0: there was none."""
        try:
            answer = await link.jetstream(
                f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._prefix + key}
            )
        except JetStreamError as error:
            if error.code != _NO_MESSAGE:
                raise
            return None, 0
        message = answer["message"]
        head = base64.b64decode(message.get("hdrs", "")).decode(errors="replace")
        data = base64.b64decode(message.get("data", ""))
        return None if says_deleted(head) else data, message["seq"]

    # -- get -----------------------------------------------------------------------------------

    def _ask_of(self, link: Link, key: str) -> Callable[[str], Any]:
        subject = self._prefix + key
        request = json.dumps({"multi_last": [subject, f"{subject}.>"]}).encode()

        async def send(inbox: str) -> None:
            await link.send(f"$JS.API.DIRECT.GET.{self._stream}", request, inbox)

        return send

    def _collector(self) -> Callable[[Msg, Future[Any]], None]:
        """Gathers the entries until the server says that these were all. The result None: too many."""
        found: dict[str, bytes] = {}

        def take(msg: Msg, done: Future[Any]) -> None:
            headers = msg.headers or {}
            status = headers.get("Status")
            if status is None:
                if not is_deleted(headers):
                    found[headers["Nats-Subject"][len(self._prefix) :]] = msg.data
            elif status == "204":
                done.set_result(found if headers.get("Nats-Num-Pending", "0") == "0" else None)
            elif status == "404" and headers.get("Description") == "No Results":
                done.set_result(found)
            elif status in ("404", "413"):  # one went meanwhile; too many
                done.set_result(None)
            elif status == "503":
                done.set_exception(NobodyListens(f"the stream {self._stream} is not there"))
            else:
                done.set_exception(BusError(f"NATS: {status} {headers.get('Description', '')}"))

        return take

    async def _get_by_watch(self, link: Link, key: str) -> dict[str, bytes]:
        """For more entries than one answer has."""
        found: dict[str, bytes] = {}

        def changed(name: str, value: bytes | None) -> None:
            if value is None:
                found.pop(name, None)
            else:
                found[name] = value

        watch = Watch(self._stream, self._prefix, key, changed)
        try:
            await watch.load(link)
        finally:
            watch.close()
            await watch.end()
        return found


class _Watching:
    """What ends a watch."""

    def __init__(self, bus: Links, watch: Watch) -> None:
        self._bus = bus
        self._watch = watch

    def close(self) -> None:
        """Nothing is told any more. Idempotent."""
        if not self._watch.is_closed:
            self._watch.close()
            self._bus.drop_watch(self._watch)


def _parts(entries: Mapping[str, bytes | None]) -> Iterator[list[tuple[str, bytes | None]]]:
    """`entries` in parts that the server takes as one batch."""
    size = sum(map(len, filter(None, entries.values())))
    items = list(entries.items())
    step = limits.BUS_MAX_BATCH
    if size > limits.BUS_MAX_BATCH_BYTES:
        step = limits.BUS_MAX_BATCH_BYTES // limits.BUS_MAX_VALUE_BYTES
    for start in range(0, len(items), step):
        yield items[start : start + step]


def _acknowledged(msg: Msg, done: Future[Any]) -> None:
    """Takes the answers to a batch or a single message. The result: how many were stored."""
    if msg.headers is not None and msg.headers.get("Status") == "503":
        done.set_exception(NobodyListens("JetStream does not listen"))
        return
    answer = json.loads(msg.data)
    if "error" in answer:
        done.set_exception(JetStreamError("put", answer["error"]))
    elif "type" not in answer:  # the others are about the flow
        done.set_result(answer.get("count", 1))
