"""Writes lines to a descriptor in a thread, so that a node never waits for whoever reads its output.

Comes in: lines, from the event loop. Goes out: the same lines in order, as fast as they are read. Only so
many wait. Further lines are dropped, and before the next line that fits, one line says how many. Never uses
Python's buffered streams: a thread that is blocked in one would hold up the end of the process.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable

MAX_WAITING = 1024
"""Lines that wait for a reader, about 200 bytes each: enough for a reader that pauses for a moment."""
FINISH_S = 0.5
"""How long the end of the process waits for lines that nobody has read yet."""


class Lines:
    """The lines of one descriptor.

    Args:
        descriptor: a file, pipe or terminal; it may block.
        lost: makes the line that says how many lines were dropped.
        failed: called once, in the thread, if the descriptor cannot be written. Later lines are dropped.
    """

    def __init__(
        self, descriptor: int, lost: Callable[[int], str], failed: Callable[[OSError], object]
    ) -> None:
        self._descriptor = descriptor
        self._lost = lost
        self._failed = failed
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._num_put = 0
        self._num_written = 0
        self._num_dropped = 0
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        """Takes a line without its end. Never waits."""
        if self._num_put - self._num_written >= MAX_WAITING:
            self._num_dropped += 1
            return
        if self._num_dropped:
            dropped, self._num_dropped = self._num_dropped, 0
            self._put(self._lost(dropped))
        self._put(line)

    def _put(self, line: str) -> None:
        self._num_put += 1
        self._queue.put(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="p2pcore output", daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Waits until all lines are written, at most FINISH_S."""
        end = time.monotonic() + FINISH_S
        while self._num_written < self._num_put and time.monotonic() < end:
            time.sleep(0.001)

    def _write(self) -> None:
        failure: OSError | None = None
        while True:
            line = self._queue.get()
            if failure is None:
                try:
                    _write_all(self._descriptor, f"{line}\n".encode(errors="backslashreplace"))
                except OSError as error:
                    failure = error
                    self._failed(error)
            self._num_written += 1


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
