"""Where a peer was last heard to be: a guess that saves a question to the bus.

Comes in: marks of peers, and the processes that have them. Goes out: the process to try first. The table
never grows: it keeps some bits of a peer's id, and a later peer may take an earlier one's place. So a guess
may be wrong; the process that is tried says so, and the bus is asked then.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from typing import Final

from p2pcore.limits import FLEET_HINT_BITS
from p2pcore.values.peer_id import PeerId

_MARK_BYTES: Final = 4
_NUMBER_BITS: Final = 16
_MAX_NUMBER: Final = (1 << _NUMBER_BITS) - 1


def marks_of(peers: Iterable[PeerId]) -> bytes:
    """The marks of `peers`, 4 bytes each: the end of an id is the end of a key or of a hash, so any bits."""
    return b"".join(map(_mark, peers))


def _mark(peer: PeerId) -> bytes:
    return peer.to_bytes()[-_MARK_BYTES:]


class Hints:
    """See above.

    Args:
        bits: the table has 2 ** bits places of 4 bytes each; at most 32.
    """

    __slots__ = ("_bits", "_free", "_names", "_numbers", "_places")

    def __init__(self, bits: int = FLEET_HINT_BITS) -> None:
        self._bits = bits
        self._places = array("I", bytes(4 << bits))  # what of the mark is no index, and a number; 0: nothing
        self._numbers: dict[str, int] = {}  # of processes, from 1 on
        self._names: list[str | None] = [None]
        self._free: list[int] = []

    def note(self, marks: bytes, process: str) -> None:
        """`process` has the peers with these marks now."""
        number = self._number(process) if marks else 0
        if not number:
            return
        places, bits, mask = self._places, self._bits, (1 << self._bits) - 1
        for (mark,) in struct.iter_unpack(">I", marks[: len(marks) // _MARK_BYTES * _MARK_BYTES]):
            places[mark & mask] = _entry(mark >> bits, number)

    def guess(self, peer: PeerId) -> str | None:
        """The process that may have `peer`; None: there is no guess."""
        place, check = self._place(peer)
        number = self._places[place] & _MAX_NUMBER
        return self._names[number] if self._places[place] == _entry(check, number) else None

    def forget(self, peer: PeerId) -> None:
        """The guess for `peer` was wrong."""
        place, _ = self._place(peer)
        self._places[place] = 0

    def ended(self, process: str) -> None:
        """`process` has no peers any more. Another one may get its number: a wrong guess does no harm."""
        number = self._numbers.pop(process, None)
        if number is not None:
            self._names[number] = None
            self._free.append(number)

    def _number(self, process: str) -> int:
        """A number for `process`; 0: there are too many."""
        number = self._numbers.get(process)
        if number is None:
            number = self._free.pop() if self._free else len(self._names)
            if number > _MAX_NUMBER:
                return 0
            if number == len(self._names):
                self._names.append(None)
            self._names[number] = process
            self._numbers[process] = number
        return number

    def _place(self, peer: PeerId) -> tuple[int, int]:
        """The index of `peer`, and the bits that tell it from others there."""
        mark = int.from_bytes(_mark(peer), "big")
        return mark & ((1 << self._bits) - 1), mark >> self._bits


def _entry(check: int, number: int) -> int:
    """A place of the table; of `check` there are 16 bits."""
    return (check << _NUMBER_BITS & 0xFFFF_FFFF) | number
