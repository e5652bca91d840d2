"""One worker process, seen from its supervisor.

Comes in: settings, a pickled factory, listening sockets. Goes out: whether it became ready, its messages, its
exit status. It is started with vfork and exec, so nothing of the supervisor is copied. It has its own process
group, so Ctrl-C on a terminal reaches only the supervisor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import spawn
from typing import Any

from p2pcore import limits
from p2pcore.workers.channel import Channel, Message
from p2pcore.workers.worker import Settings, WorkerStatus

logger = logging.getLogger("p2pcore.workers")

_STOPPED = "T"
_TRACED = "t"


class Process:
    """A worker process. Made by `start`.

    Attributes:
        index, pid: which worker it is.
        ready: done when it serves, or when it has ended before that (then `is_ready` is False).
        ended: done when it has ended. Its result is the exit status, negative for a signal.
        addrs: the addresses it listens on, with /p2p/ID. error: the reason it gave for its failure.
        has_turn: whether it can ask for the turn of supervisors; see turns.py.
        details: the last p2pcore.admin.describe that it told; {}: none. is_draining: True once it was told to
            drain. is_silent: True while signs of life are overdue.
    """

    def __init__(
        self,
        index: int,
        popen: subprocess.Popen[bytes],
        channel: Channel,
        on_message: OnMessage,
        max_blocked_s: float = limits.WORKER_BLOCKED_S,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.index = index
        self.pid = popen.pid
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()
        self.ready_at = 0.0
        self.addrs: list[str] = []
        self.error: str | None = None
        self.is_draining = False
        self.has_turn = False
        self.details: dict[str, Any] = {}
        self.is_silent = False
        self._popen = popen
        self._channel = channel
        self._on_message = on_message
        self._statuses: list[asyncio.Future[WorkerStatus]] = []
        self._known = WorkerStatus(index, popen.pid, 0, 0, 0.0, 0)
        self._max_blocked_s = max_blocked_s
        self._heard_at = self._looked_at = loop.time()
        self._looking: asyncio.TimerHandle | None = None
        self._watching = loop.create_task(self._watch())

    @classmethod
    async def start(
        cls,
        settings: Settings,
        work: bytes,
        sockets: Sequence[socket.socket],
        on_message: OnMessage,
        max_blocked_s: float = limits.WORKER_BLOCKED_S,
    ) -> Process:
        """Starts an interpreter and sends it the settings. Does not wait for `ready`. Raises OSError.

        `max_blocked_s`: see Supervisor.
        """
        instructions = _instructions(settings, work)
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "p2pcore.workers", str(theirs.fileno())]
        try:
            popen = subprocess.Popen(  # noqa: ASYNC220 - milliseconds, and asyncio would need a child watcher
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *(sock.fileno() for sock in sockets)],
                process_group=0,
                env={"PYTHONMALLOC": "malloc", **os.environ},  # docs/decisions/ has why
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            channel = await Channel.over(ours)
        except BaseException:  # above all if the start is cancelled
            ours.close()
            popen.kill()
            popen.wait()  # milliseconds: it was killed
            raise
        channel.send_bytes(instructions)
        return cls(settings.index, popen, channel, on_message, max_blocked_s)

    @property
    def is_ready(self) -> bool:
        """True once it has served, even after its end."""
        return self.ready_at > 0

    def drain(self, timeout_s: float, accept_queued: bool) -> None:
        """Tells it to drain. If it does not serve yet, it is killed."""
        self.is_draining = True
        if not self.is_ready or not self._channel.send(
            do="drain", timeout_s=timeout_s, accept_queued=accept_queued
        ):
            self.kill()

    def kill(self) -> None:
        """Ends it at once."""
        if not self.ended.done():
            self._popen.kill()

    def send(self, **message: object) -> bool:
        """Sends it a message. False: it was dropped, because the worker does not read."""
        return self._channel.send(**message)

    def ask_metrics(self) -> None:
        """Asks it for its metrics. They come as a message."""
        self._channel.send(do="metrics")

    @property
    def silent_s(self) -> float:
        """Seconds since its last sign of life; after a pause of our own more than is true."""
        return asyncio.get_running_loop().time() - self._heard_at

    async def status(self, with_details: bool = False) -> WorkerStatus | None:
        """Its status now, or what is known if it does not answer. None: it does not serve, or has ended.

        Args:
            with_details: ask for a new `details` too.
        """
        if not self.is_ready or self.ended.done():
            return None
        answer: asyncio.Future[WorkerStatus] = asyncio.get_running_loop().create_future()
        self._statuses.append(answer)
        self._channel.send(do="status", with_details=with_details)
        either: list[asyncio.Future[Any]] = [answer, self.ended]
        await asyncio.wait(either, timeout=limits.WORKER_ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
        if answer.done() or self.ended.done():
            return answer.result() if answer.done() else None
        self._statuses.remove(answer)
        return replace(self._known, silent_s=asyncio.get_running_loop().time() - self._heard_at)

    async def _watch(self) -> None:
        """Handles its messages, then its end. If the channel ends first, the process is killed."""
        try:
            while (message := await self._channel.receive()) is not None:
                self._heard(message)
        except Exception as error:  # a drain waits for `ended`, so a bad message must not keep us from it
            self.error = f"it sent a bad message: {error!r}"
            self.kill()
        if self._looking is not None:
            self._looking.cancel()
        self._channel.close()
        self.ended.set_result(await self._exit_status())
        if not self.ready.done():
            self.ready.set_result(None)

    def _heard(self, message: Message) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        event = message["event"]
        if event == "ready":
            if self.ready.done():
                raise ValueError("it said twice that it is ready")
            self.addrs = message["addrs"]
            self.has_turn = message["has_turn"]
            self.ready_at = asyncio.get_running_loop().time()
            self.ready.set_result(None)
            self._looked_at = self.ready_at
            self._look_later()
        elif event == "failed":
            self.error = message["error"]
        elif event == "status":
            status = self._known = WorkerStatus(**message["fields"])
            self.details = message.get("details") or self.details
            waiting, self._statuses = self._statuses, []
            for each in waiting:
                if not each.done():
                    each.set_result(status)
        self._on_message(self, message)

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(limits.WORKER_HEARTBEAT_S, self._look)

    def _look(self) -> None:
        """Looks whether signs of life are overdue. If the look is late, we stood still: they are not."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at > 2 * limits.WORKER_HEARTBEAT_S:
            self._heard_at = now
        self._looked_at = now
        silent_s = now - self._heard_at
        if silent_s <= limits.WORKER_SILENT_S:
            self.is_silent = False
        else:
            self._overdue(silent_s)
        self._look_later()

    def _overdue(self, silent_s: float) -> None:
        """Ends the worker if it was stopped or blocked for too long, but not if it has a debugger."""
        state = _state_of(self.pid)
        is_blocked = 0 < self._max_blocked_s < silent_s and state != _TRACED
        if state == _STOPPED or is_blocked:
            why = "it was stopped" if state == _STOPPED else "its event loop was blocked"
            self.error = f"{why}, and silent for {silent_s:.0f} s"
            self.kill()
        elif not self.is_silent:
            logger.warning("worker %d (pid %d) gives no sign of life", self.index, self.pid)
        self.is_silent = True

    async def _exit_status(self) -> int:
        loop = asyncio.get_running_loop()
        end = loop.time() + limits.WORKER_EXIT_S
        while (status := self._popen.poll()) is None:
            if loop.time() > end:
                self._popen.kill()
            await asyncio.sleep(0.005)
        return status


def _state_of(pid: int) -> str:
    """The state of a process as in proc(5); "" if it cannot be known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0].decode()
    except (OSError, IndexError):
        return ""


OnMessage = Callable[[Process, Message], None]


def _instructions(settings: Settings, work: bytes) -> bytes:
    """Everything a fresh interpreter needs to load `work`: what multiprocessing gives its children too."""
    preparation = spawn.get_preparation_data("p2pcore worker")
    del preparation["authkey"]
    return pickle.dumps((preparation, settings, work))


def pickled(factory: Any, args: Sequence[Any]) -> bytes:
    """The call that each worker makes, pickled. Raises ValueError: another process cannot import it."""
    try:
        return pickle.dumps((factory, tuple(args)))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"workers cannot import their factory or its arguments: {error}") from error
