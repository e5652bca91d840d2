"""Peers of interop/README.md as processes: each has its own core, and each answer has a deadline.

Comes in: commands of interop/build.py or of the user. Goes out: the JSON lines a peer answers. If a peer
says or does anything else, PeerFailure is raised. Each process has its own group, which is killed at the end.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 30.0
OPERATION_TIMEOUT_S = 120.0
SETTLE_TIMEOUT_S = 30.0
ERROR_CHARACTERS = 300
"""Characters kept of what a failed peer said: enough for its one line of error."""

Line = dict[str, Any]


class PeerFailure(Exception):
    """A peer did not do what it was asked to do."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One implementation: the name of its column, and the command that starts it."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cores:
    """Where things run; None where the system cannot pin processes."""

    listener: int | None
    dialer: int | None


def _siblings(core: int) -> set[int]:
    """Logical processors that share a physical core with this one, itself included."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    found: set[int] = {core}
    with contextlib.suppress(OSError, ValueError):
        for part in path.read_text().strip().split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


def choose_cores() -> Cores:
    """Two cores that are not threads of one physical core, if the machine has them."""
    if not hasattr(os, "sched_getaffinity"):
        return Cores(None, None)
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        return Cores(None, None)
    apart = [core for core in allowed if core not in _siblings(allowed[0])]
    return Cores(allowed[0], (apart or allowed)[-1])


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Children started inside run on `core` alone, from their first instruction (Go counts cores once)."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def load_builder() -> ModuleType:
    """interop/build.py as a module; it is a script beside the peers, not part of any package."""
    spec = importlib.util.spec_from_file_location("interop_build", ROOT / "interop" / "build.py")
    if spec is None or spec.loader is None:
        raise ImportError("interop/build.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Process:
    """A peer that runs; its standard output as lines, each waited for with a deadline."""

    def __init__(self, command: tuple[str, ...], core: int | None = None) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        with pinned(core):
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                start_new_session=True,
            )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self._lines.put(line)
        self._lines.put(None)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def failure(self, what: str) -> PeerFailure:
        """What went wrong, with the last words of the peer."""
        self._errors.seek(0)
        words = " ".join(self._errors.read()[-ERROR_CHARACTERS:].split())
        return PeerFailure(f"{what}: {words}" if words else what)

    def line(self, timeout: float) -> str | None:
        """The next line of standard output; None at its end.

        Raises:
            PeerFailure: there is none within `timeout` seconds.
        """
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            raise self.failure(f"said nothing for {timeout:g} s") from None

    def answer(self, timeout: float) -> Line:
        """The next line, as JSON.

        Raises:
            PeerFailure: there is no line, or it is not JSON.
        """
        text = self.line(timeout)
        if text is None:
            raise self.failure("ended before it answered")
        try:
            parsed = json.loads(text)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise self.failure(f"said {text[:ERROR_CHARACTERS]!r} instead of a JSON object")
        return parsed

    def say(self, order: str) -> None:
        """Writes one line to standard input."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(f"{order}\n")
            self._popen.stdin.flush()
        except OSError as error:
            raise self.failure(f"does not listen to {order}") from error

    def wait(self, timeout: float) -> int:
        """The exit status."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.failure(f"still runs after {timeout:g} s") from None

    def close(self) -> None:
        """Kills the whole group, whatever state it is in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._reader.join()
        for pipe in (self._popen.stdin, self._popen.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        self._errors.close()


class Listener(Process):
    """A peer that listens. `address` is its multiaddr with its id, `port` its TCP port."""

    def __init__(self, peer: Peer, core: int | None, *options: str, op: str = "listen") -> None:
        super().__init__((*peer.command, op, *options), core)
        try:
            first = self.line(START_TIMEOUT_S)
            if first is None or not first.startswith("ADDR "):
                raise self.failure("did not listen")
            self.address = first.split()[1]
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        """The TCP port in `address`."""
        parts = self.address.split("/")
        return int(parts[parts.index("tcp") + 1])

    def through(self, port: int) -> str:
        """Its address with the port of a proxy."""
        parts = self.address.split("/")
        parts[parts.index("tcp") + 1] = str(port)
        return "/".join(parts)

    def ask(self, order: str) -> Line:
        """The answer to `stat` or `gc`."""
        self.say(order)
        return self.answer(START_TIMEOUT_S)

    def settled(self, conns: int) -> Line:
        """The answer to `stat` when `conns` connections are open and 0.1 s costs almost no CPU.

        Raises:
            PeerFailure: it does not come to rest.
        """
        end = time.monotonic() + SETTLE_TIMEOUT_S
        before = self.ask("stat")
        while time.monotonic() < end:
            time.sleep(0.1)
            now = self.ask("stat")
            if now["conns"] == conns and now["cpu"] - before["cpu"] < 0.005:
                return now
            before = now
        raise self.failure(f"{before['conns']} connections instead of {conns}, or never at rest")


def dial(peer: Peer, core: int | None, op: str, to: str, *options: str) -> list[Line]:
    """One operation of a dialer that has to succeed: its JSON lines, the result last.

    Raises:
        PeerFailure: any other exit status than 0, or no lines.
    """
    with Process((*peer.command, op, "-to", to, *options), core) as process:
        end = time.monotonic() + OPERATION_TIMEOUT_S
        lines = []
        while (text := process.line(max(0.0, end - time.monotonic()))) is not None:
            lines.append(json.loads(text))
        if process.wait(START_TIMEOUT_S) != 0 or not lines:
            raise process.failure(f"{op} failed")
    return lines


class Held(Process):
    """A dialer that holds `count` connections while it is open.

    Args:
        op: the operation that says "HELD `count`". options: its options, in place of `-n count`.
    """

    def __init__(
        self, peer: Peer, core: int | None, to: str, count: int, *options: str, op: str = "idle"
    ) -> None:
        super().__init__((*peer.command, op, "-to", to, *(options or ("-n", str(count)))), core)
        try:
            said = self.line(OPERATION_TIMEOUT_S)
            if said is None or said.split() != ["HELD", str(count)]:
                raise self.failure(f"holds {said!r} instead of {count} connections")
        except BaseException:
            self.close()
            raise
