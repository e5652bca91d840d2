"""One worker process as its supervisor sees it: started, told things, watched to its end.

Comes in: settings, a pickled factory, listening sockets. Goes out: whether it became ready, what it says, how
it ended. Processes are started with vfork and exec, so that nothing of this one is copied, and in a process
group of their own, so that Ctrl-C on a terminal reaches the supervisor alone.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing import spawn
from typing import Any

from p2pcore import limits
from p2pcore.workers.channel import Channel, Message
from p2pcore.workers.worker import Settings, WorkerStatus


class Process:
    """Made by `start`.

    Attributes:
        index, pid: which worker it is.
        ready: done when it serves, or has ended without (then `is_ready` is False).
        ended: done with its exit status, negative for a signal, when it has ended.
        addrs: where it listens, with /p2p/ID; error: what it said of why it failed.
        is_draining: it was told to end.
    """

    def __init__(
        self, index: int, popen: subprocess.Popen[bytes], channel: Channel, on_message: OnMessage
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
        self._popen = popen
        self._channel = channel
        self._on_message = on_message
        self._statuses: list[asyncio.Future[WorkerStatus]] = []
        self._watching = loop.create_task(self._watch())

    @classmethod
    async def start(
        cls, settings: Settings, work: bytes, sockets: Sequence[socket.socket], on_message: OnMessage
    ) -> Process:
        """Starts an interpreter and gives it its settings; see `ready` for when it serves. Raises OSError."""
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
        except BaseException:  # a cancelled start above all
            ours.close()
            popen.kill()
            popen.wait()  # milliseconds: it was killed
            raise
        channel.send_bytes(instructions)
        return cls(settings.index, popen, channel, on_message)

    @property
    def is_ready(self) -> bool:
        """True once it has served, also after its end."""
        return self.ready_at > 0

    def drain(self, timeout_s: float, accept_queued: bool) -> None:
        """Tells it to end in good order; one that does not serve yet is killed."""
        self.is_draining = True
        if not self.is_ready or not self._channel.send(
            do="drain", timeout_s=timeout_s, accept_queued=accept_queued
        ):
            self.kill()

    def kill(self) -> None:
        """Ends it at once."""
        if not self.ended.done():
            self._popen.kill()

    async def status(self) -> WorkerStatus | None:
        """What it holds now; None if it does not serve, or ends before it answers."""
        if not self.is_ready or self.ended.done():
            return None
        answer: asyncio.Future[WorkerStatus] = asyncio.get_running_loop().create_future()
        self._statuses.append(answer)
        self._channel.send(do="status")
        either: list[asyncio.Future[Any]] = [answer, self.ended]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None

    async def _watch(self) -> None:
        """Its messages, then its end. The channel ends with the process, or the process is ended with it."""
        try:
            while (message := await self._channel.receive()) is not None:
                self._heard(message)
        except Exception as error:  # whatever it sends, its end is told: a drain waits for it
            self.error = f"it sent what is no message: {error!r}"
            self.kill()
        self._channel.close()
        self.ended.set_result(await self._exit_status())
        if not self.ready.done():
            self.ready.set_result(None)

    def _heard(self, message: Message) -> None:
        event = message["event"]
        if event == "ready":
            if self.ready.done():
                raise ValueError("it is ready a second time")
            self.addrs = message["addrs"]
            self.ready_at = asyncio.get_running_loop().time()
            self.ready.set_result(None)
        elif event == "failed":
            self.error = message["error"]
        elif event == "status":
            status = WorkerStatus(**message["fields"])
            waiting, self._statuses = self._statuses, []
            for each in waiting:
                if not each.done():
                    each.set_result(status)
        self._on_message(self, message)

    async def _exit_status(self) -> int:
        loop = asyncio.get_running_loop()
        end = loop.time() + limits.WORKER_EXIT_S
        while (status := self._popen.poll()) is None:
            if loop.time() > end:
                self._popen.kill()
            await asyncio.sleep(0.005)
        return status


OnMessage = Callable[[Process, Message], None]


def _instructions(settings: Settings, work: bytes) -> bytes:
    """All a fresh interpreter needs to load `work`, as multiprocessing gives it to its own children."""
    preparation = spawn.get_preparation_data("p2pcore worker")
    del preparation["authkey"]
    return pickle.dumps((preparation, settings, work))


def pickled(factory: Any, args: Sequence[Any]) -> bytes:
    """What each worker is to call. Raises ValueError: it cannot be imported in another process."""
    try:
        return pickle.dumps((factory, tuple(args)))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"workers cannot import their factory or its arguments: {error}") from error
