"""What a worker does on the bus for the turn of its supervisor; see turns.py.

Comes in: questions of the supervisor, over its channel. Goes out: answers. It keeps nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, runtime_checkable

from p2pcore import limits
from p2pcore.aio.turn import Cell
from p2pcore.errors import BusError
from p2pcore.workers.channel import Channel, Message


@runtime_checkable
class HasRestartCell(Protocol):
    """What a worker has beside its host, if its supervisor is to take turns: a Fleet."""

    @property
    def restart_cell(self) -> Cell | None:
        """The cell of the turn of all supervisors; None: there is only one."""


class TurnProxy:
    """The worker's side: does what the supervisor asks.

    Args: cell: of the turn. channel: to the supervisor.
    """

    def __init__(self, cell: Cell, channel: Channel) -> None:
        self._cell = cell
        self._channel = channel
        self._tasks: set[asyncio.Task[None]] = set()

    def heard(self, message: Message) -> None:
        """Answers a question of RestartTurn. It asks one at a time."""
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Message) -> None:
        answer: dict[str, Any]
        try:
            async with asyncio.timeout(limits.WORKER_TURN_ANSWER_S):
                if "value" in message:
                    expected, value = bytes_of(message["expected"]), bytes_of(message["value"]) or b""
                    answer = {"is_swapped": await self._cell.swap(expected, value)}
                else:
                    answer = {"found": text_of(await self._cell.get())}
        except (BusError, TimeoutError, RuntimeError) as error:  # RuntimeError: the fleet has ended
            answer = {"error": f"{type(error).__name__}: {error}"}
        self._channel.send(event="turn", n=message["n"], **answer)


def text_of(value: bytes | None) -> str | None:
    """For JSON: each byte is a character."""
    return None if value is None else value.decode("latin-1")


def bytes_of(text: str | None) -> bytes | None:
    """The other way."""
    return None if text is None else text.encode("latin-1")
