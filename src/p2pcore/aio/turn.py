"""A turn that one holder has at a time, among processes that share a cell of some table.

Comes in: a cell that can be read and swapped. Goes out: the right to do something, until a time on our own
clock. No two clocks are compared: who waits takes the turn of a holder that has not renewed it for as long as
the holder has said. A holder that could not renew it in that time knows that it has it no more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import secrets
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Protocol, Self

from p2pcore.errors import BusError
from p2pcore.limits import (
    FLEET_CLOSE_S,
    FLEET_TURN_EXPIRY_S,
    FLEET_TURN_LOOK_S,
    FLEET_TURN_MAX_BYTES,
    FLEET_TURN_MAX_EXPIRY_S,
    FLEET_TURN_RENEWALS,
    FLEET_TURN_TIMEOUT_S,
)

logger = logging.getLogger("p2pcore.fleet")

_FREE: Final = b""
"""Nobody has the turn. A cell without a value says the same."""


class Cell(Protocol):
    """Where the holder of a turn is written. Both raise BusError; after a `swap` that did, it may be so."""

    async def get(self) -> bytes | None:
        """What is there; None: nothing."""

    async def swap(self, expected: bytes | None, value: bytes) -> bool:
        """Writes `value` if `expected` is there. Returns: whether it was."""


class Turn:
    """One attempt to have a turn; an async context manager, once.

        async with fleet.turn("migration") as turn:
            for step in steps:
                await turn.hold()
                await step()

    Args:
        cell: of the turn. name: of the turn. holder: who we are, for people.
        expiry_s: seconds after which a turn that is not renewed is over; each holder says its own.
        timeout_s: the longest wait for the turn.
    """

    def __init__(
        self,
        cell: Cell,
        name: str,
        holder: str,
        *,
        expiry_s: float = FLEET_TURN_EXPIRY_S,
        timeout_s: float = FLEET_TURN_TIMEOUT_S,
    ) -> None:
        self._cell = cell
        self._name = name
        self._holder = holder
        self._expiry_s = expiry_s
        self._timeout_s = timeout_s
        self._clock = asyncio.get_running_loop().time
        self._token = secrets.token_hex(8)
        self._beat = 0
        self._found: bytes | None = None  # in the cell, the last time
        self._until = float("-inf")
        self._lock = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None

    @property
    def is_held(self) -> bool:
        """Whether the turn is certainly ours at this moment."""
        return self._clock() < self._until

    async def hold(self) -> None:
        """Returns when the turn is ours for `expiry_s` from about now: call it before each step.

        It renews the turn. If it has been lost meanwhile, it waits for it again, for at most `timeout_s`.

        Raises: TimeoutError: others had it, or the bus was away, for all that time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._take()
        except TimeoutError:
            who = _holder_of(self._found)
            raise TimeoutError(f"no turn {self._name!r} in {self._timeout_s:g} s: {who}") from None

    async def __aenter__(self) -> Self:
        """Waits for the turn. Raises: as `hold`."""
        try:
            await self.hold()
        except BaseException:
            await self._give_back()
            raise
        self._renewing = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the turn back. If the bus is away, it is free after `expiry_s`."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await self._give_back()

    # -- what is written -----------------------------------------------------------------------

    async def _take(self) -> None:
        """Writes that the turn is ours, once that may be written."""
        seen_at: float | None = None
        is_told = False
        while True:
            with suppress(BusError):
                async with self._lock:
                    found = await self._cell.get()
                    if found != self._found or seen_at is None:
                        self._found, seen_at = found, self._clock()
                    if self._may_take(found, seen_at) and await self._write(found):
                        return
            if not is_told:
                is_told = True
                logger.warning("waiting for the turn %r: %s", self._name, _holder_of(self._found))
            await asyncio.sleep(FLEET_TURN_LOOK_S * random.uniform(0.5, 1.5))

    def _may_take(self, found: bytes | None, seen_at: float) -> bool:
        return (
            not found or self._is_ours(found) or self._clock() - seen_at >= _expiry_of(found, self._expiry_s)
        )

    def _is_ours(self, value: bytes | None) -> bool:
        return _said(value).get("token") == self._token

    async def _write(self, found: bytes | None) -> bool:
        """Whether the cell says now that the turn is ours, from before this call on."""
        began = self._clock()
        self._beat += 1
        said = {
            "holder": self._holder,
            "expiry_s": self._expiry_s,
            "token": self._token,
            "beat": self._beat,
        }
        value = json.dumps(said).encode()
        is_ours = await self._cell.swap(found, value)
        if is_ours:
            self._found = value
            self._until = began + self._expiry_s
        return is_ours

    async def _keep(self) -> None:
        """Renews the turn as long as it is ours; what was lost, `hold` gets again."""
        while True:
            await asyncio.sleep(self._expiry_s / FLEET_TURN_RENEWALS)
            with suppress(BusError):
                async with self._lock:
                    found = await self._cell.get()
                    if self._is_ours(found) or (not found and self.is_held):
                        await self._write(found)
                    elif self._until > float("-inf"):
                        self._until = float("-inf")
                        logger.warning("the turn %r is lost: %s", self._name, _holder_of(found))

    async def _give_back(self) -> None:
        self._until = float("-inf")
        with suppress(BusError, TimeoutError):
            async with asyncio.timeout(min(self._expiry_s, FLEET_CLOSE_S)):
                found = await self._cell.get()
                if self._is_ours(found):
                    await self._cell.swap(found, _FREE)


def _said(value: bytes | None) -> dict[str, Any]:
    """What a cell says; {}: nothing that can be read."""
    try:
        said = json.loads((value or b"")[:FLEET_TURN_MAX_BYTES])
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _expiry_of(value: bytes | None, otherwise: float) -> float:
    """How long its holder has it without renewing it."""
    expiry_s = _said(value).get("expiry_s")
    if isinstance(expiry_s, int | float) and 0 < expiry_s <= FLEET_TURN_MAX_EXPIRY_S:
        return float(expiry_s)
    return otherwise


def _holder_of(value: bytes | None) -> str:
    """Who has it, for people."""
    return f"{_said(value).get('holder', 'somebody')} has it" if value else "nobody is known to have it"
