"""Messages with an id that one process has handed to their peers, so that none is handed over twice here.

Comes in: ids, and the work of one. Goes out: its answer, also for the same id later and meanwhile. The table
is bounded: what was done longest ago is forgotten first. Never keeps a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from p2pcore.limits import FLEET_MAX_DONE, FLEET_MAX_DONE_BYTES


class Done:
    """See above.

    Args:
        most, most_bytes: ids that are remembered, and bytes of their answers together.

    Attributes:
        num_bytes: of the answers that are remembered.
    """

    __slots__ = ("_answers", "_most", "_most_bytes", "_running", "num_bytes")

    def __init__(self, most: int = FLEET_MAX_DONE, most_bytes: int = FLEET_MAX_DONE_BYTES) -> None:
        self._answers: dict[Hashable, bytes] = {}
        self._running: dict[Hashable, asyncio.Future[None]] = {}
        self._most = most
        self._most_bytes = most_bytes
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    async def once(self, key: Hashable, work: Callable[[], Awaitable[bytes]], patience_s: float) -> bytes:
        """The answer of `work()`, which runs only if no answer for `key` is known.

        While another call runs it for the same key, this one waits, for at most `patience_s`. Raises
        TimeoutError after that, and what `work` raises: then a further call runs it again.
        """
        while (running := self._running.get(key)) is not None:
            async with asyncio.timeout(patience_s):
                await asyncio.shield(running)
        if key in self._answers:
            return self._answers[key]
        running = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await work()
            self._keep(key, answer)
            return answer
        finally:
            del self._running[key]
            running.set_result(None)

    def _keep(self, key: Hashable, answer: bytes) -> None:
        self._answers[key] = answer
        self.num_bytes += len(answer)
        while len(self._answers) > self._most or self.num_bytes > self._most_bytes:
            self.num_bytes -= len(self._answers.pop(next(iter(self._answers))))
