"""What a fleet needs of a message bus, whichever it is.

Comes in: subjects, keys and bytes. Goes out: the same, at other processes. An implementation bounds all that
waits, fails at once with BusDown while its engine is away, and never calls a callback from another thread.

A subject and a key are words of A-Z, a-z, 0-9, "-" and "_", joined by dots. See docs/fleet.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class BusMessage:
    """A message that came over the bus.

    Attributes:
        subject: as it was published. data: at most BUS_MAX_MESSAGE_BYTES.
        answer: sends the answer of a request; None: nobody waits for one. It never waits and never raises.
    """

    subject: str
    data: bytes
    answer: Callable[[bytes], None] | None = None


class Subscription(Protocol):
    """What ends a subscription or a watch."""

    def close(self) -> None:
        """Nothing is delivered any more. Idempotent."""


class Bucket(Protocol):
    """A table of small values that all processes share. An entry goes when it has not been put for a time."""

    async def put(self, entries: Mapping[str, bytes | None]) -> None:
        """Writes many entries; None deletes one. Returns when the engine has all of them.

        Raises: BusDown: the engine is away; some entries may be written.
        """

    async def swap(self, key: str, expected: bytes | None, value: bytes | None) -> bool:
        """Writes one entry if it is `expected` now; None stands for no entry. Of two at once, one succeeds.

        Returns: whether it was written. False may also come from an engine that is just changing its leader.
        Raises: BusDown: the engine is away; it may be written.
        """

    async def get(self, key: str) -> dict[str, bytes]:
        """The entry of `key`, and all whose keys begin with `key` and a dot, by key. {}: there is none.

        Raises: BusDown.
        """

    async def watch(self, key: str, changed: Callable[[str, bytes | None], None]) -> Subscription:
        """Calls `changed(key, value)` for each entry that `get(key)` finds, then for each change of one.

        A put that changes nothing is not told; of changes in short succession, only the last may be. None as
        value: the entry is gone, deleted or expired. After the engine was away, what changed meanwhile is
        told. Returns when the entries that were there have been told. Raises: BusDown.
        """


@runtime_checkable
class Bus(Protocol):
    """Carries messages between the processes of a fleet. Publishing and requests deliver at most once."""

    @property
    def is_up(self) -> bool:
        """Whether the engine answers, as far as is known."""

    @property
    def num_dropped(self) -> int:
        """Messages that this process has lost: they came faster than it took them, or could not leave."""

    def on_state(self, changed: Callable[[bool], None]) -> Subscription:
        """Calls `changed(is_up)` when the engine goes away, and when it is back.

        When it is back, all subscriptions and watches hold, and buckets can be used.
        """

    async def publish(self, subject: str, data: bytes) -> None:
        """Sends `data` to everybody who subscribed to `subject` now. Nobody may be there.

        Returns when the bus has taken it, which is no proof of delivery.

        Raises:
            BusDown: the engine is away.
            LimitExceeded: `data` has more than BUS_MAX_MESSAGE_BYTES.
        """

    async def subscribe(self, subject: str, deliver: Callable[[BusMessage], None]) -> Subscription:
        """Calls `deliver` with each message of `subject`. `deliver` must be quick and must not raise.

        A subject that ends with ".*" stands for all that have one word in its place. Holds until it is
        closed, also when the engine was away meanwhile; messages of that time are lost. Raises: BusDown.
        """

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        """The first answer to `data`.

        Raises:
            NobodyListens: nobody subscribed to `subject`; `data` reached nobody.
            TimeoutError: there was no answer in time; `data` may have been received.
            BusDown: the engine is away, or went away before the answer; `data` may have been received.
            LimitExceeded: `data` has more than BUS_MAX_MESSAGE_BYTES.
        """

    async def bucket(self, name: str, *, expiry_s: float | None = None) -> Bucket:
        """The bucket `name` (one word), made if it is not there.

        Args:
            expiry_s: an entry goes this long after it was last put; None: never. Seconds, at least 1.

        Raises: BusDown.
        """

    async def close(self) -> None:
        """Ends all subscriptions and lets go of the engine. Idempotent."""
