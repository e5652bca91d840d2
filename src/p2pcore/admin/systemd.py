"""Tells systemd how a node is: READY, RELOADING, STOPPING, STATUS and WATCHDOG. Source: sd_notify(3).

Comes in: a node that serves, the environment that systemd sets. Goes out: datagrams to $NOTIFY_SOCKET.
Without that variable it does nothing. Never waits and never fails: what cannot be sent is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, Self

from p2pcore import limits
from p2pcore.host import Host
from p2pcore.swarm.events import Draining

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger("p2pcore.admin")


class Restartable(Protocol):
    """A node of several processes: a Supervisor.

    Attributes:
        on_state: called with "draining", "restarting" and "serving" when that begins.
    """

    on_state: Callable[[str], None]

    def summary(self) -> str:
        """What it does, in one line."""


class Systemd:
    """Reports one node to systemd. An async context manager, or `start` and `close`.

    Args:
        node: a Host or a Supervisor.
        stop_s: seconds that the end of the node may take. systemd is asked to wait for so long.
    """

    def __init__(self, node: Host | Restartable, stop_s: float) -> None:
        self._node = node
        self._stop_s = stop_s
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False

    def start(self) -> None:
        """The node serves."""
        if self._address:
            self._send("READY=1", f"STATUS={self._summary()}")
            self._begin(self._tell_status())
            if (period_s := _watchdog_s()) is not None:
                self._begin(self._feed_watchdog(period_s / 2))
            self._watch_state()

    async def close(self) -> None:
        """The node has ended, or is about to. Idempotent."""
        self.stopping()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def stopping(self) -> None:
        """The node begins to end. Idempotent."""
        if not self._is_stopping:
            self._is_stopping = True
            margin_s = self._stop_s + limits.WORKER_EXIT_S
            self._send("STOPPING=1", "STATUS=draining", f"EXTEND_TIMEOUT_USEC={int(margin_s * 1e6)}")

    def _watch_state(self) -> None:
        if isinstance(self._node, Host):
            self._begin(self._wait_for_drain(self._node))
        else:
            self._node.on_state = self._changed

    def _changed(self, state: str) -> None:
        if state == "draining":
            self.stopping()
        elif state == "restarting":
            self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        else:
            self._send("READY=1", f"STATUS={self._summary()}")

    async def _wait_for_drain(self, host: Host) -> None:
        async for _ in host.events(Draining):
            self.stopping()

    async def _tell_status(self) -> None:
        while not self._is_stopping:
            await asyncio.sleep(limits.SYSTEMD_STATUS_S)
            self._send(f"STATUS={self._summary()}")

    async def _feed_watchdog(self, every_s: float) -> None:
        """Runs on the node's event loop: if that is stuck, systemd ends the process and starts another."""
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(every_s)

    def _summary(self) -> str:
        if not isinstance(self._node, Host):
            return self._node.summary()
        swarm = self._node.swarm
        return f"serving {swarm.num_conns} connections, {swarm.num_handlers_running} handlers"

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            logger.debug("systemd was not told %s: %r", lines[0], error)


def _watchdog_s() -> float | None:
    """Seconds within which systemd wants a sign of life of this process; None: it wants none."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    usec = os.environ.get("WATCHDOG_USEC", "")
    return int(usec) / 1e6 if usec.isascii() and usec.isdigit() and int(usec) else None
