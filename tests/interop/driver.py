"""Runs one peer against another, by the contract of interop/README.md.

Comes in: peers of interop/build.py. Goes out: the JSON lines of the dialer, or an AssertionError with the
output of both. Every wait has a deadline; every process is killed with its group afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from matrix import WORKERS, Cell, Material, Route, spelled

from harness import seconds

ROOT = Path(__file__).resolve().parents[2]

START_TIMEOUT_S = 60.0
OPERATION_TIMEOUT_S = 150.0
STOP_TIMEOUT_S = 15.0

Line = dict[str, Any]


def last_words(file: IO[str]) -> str:
    """The last 4,000 characters of a process's standard error."""
    file.seek(0)
    return file.read()[-4000:].strip()


class Process:
    """A peer in its own process group; its output as lines with deadlines."""

    def __init__(self, command: tuple[str, ...], *args: str) -> None:
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.popen = subprocess.Popen(
            [*command, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,
        )
        self.args_text = " ".join(args)
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def line(self, timeout: float) -> str | None:
        """The next line of standard output, None at its end."""
        try:
            return self._lines.get(timeout=seconds(timeout))
        except queue.Empty:
            raise AssertionError(f"no line within {timeout} s from: {self.describe()}") from None

    def say(self, order: str) -> None:
        """Writes one line to the peer's standard input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{order}\n")
        self.popen.stdin.flush()

    def wait(self, timeout: float) -> int:
        """The exit status."""
        try:
            return self.popen.wait(seconds(timeout))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s: {self.describe()}") from None

    def describe(self) -> str:
        """Its command, its state, and its standard error."""
        return f"[{self.args_text}] exit {self.popen.poll()}, standard error: {last_words(self.errors)!r}"

    def close(self) -> None:
        """Kills the whole group in any state. Idempotent."""
        if self.errors.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        self._reader.join()
        for pipe in (self.popen.stdin, self.popen.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        self.errors.close()


class Listener(Process):
    """A peer that listens or is a relay. `addresses` are where, with its peer id; `address` is the first."""

    def __init__(self, command: tuple[str, ...], *args: str, role: str = "listen", count: int = 1) -> None:
        super().__init__(command, role, *args)
        try:
            self.addresses = [self._announced() for _ in range(count)]
        except BaseException:
            self.close()
            raise
        self.address = self.addresses[0]

    def _announced(self) -> str:
        line = self.line(START_TIMEOUT_S)
        assert line is not None, self.describe()
        assert line.startswith("ADDR "), f"{line!r} from {self.describe()}"
        return line.split()[1]

    def ask(self, order: str) -> Line:
        """The answer to `stat` or `gc`."""
        self.say(order)
        answer = self.line(START_TIMEOUT_S)
        assert answer is not None, self.describe()
        parsed: Line = json.loads(answer)
        return parsed

    def wait_for(self, key: str, value: object) -> None:
        """Asks `stat` until the condition is true."""
        end = time.monotonic() + seconds(STOP_TIMEOUT_S)
        while (said := self.ask("stat"))[key] != value:
            assert time.monotonic() < end, f"{said}, {self.describe()}"

    def quit(self) -> None:
        """Ends as ../README.md says, with exit status 0."""
        self.say("quit")
        assert self.wait(STOP_TIMEOUT_S) == 0, self.describe()


def flags(options: Mapping[str, object]) -> list[str]:
    """`options` as arguments; an option that is True has no value."""
    given = ((f"-{name}",) if value is True else (f"-{name}", str(value)) for name, value in options.items())
    return [text for option in given for text in option]


def dial(command: tuple[str, ...], operation: str, to: str, **options: object) -> tuple[int, list[Line], str]:
    """One operation, or several separated by commas: exit status, JSON lines, standard error."""
    process = Process(command, operation, "-to", to, *flags(options))
    try:
        lines = []
        while (text := process.line(OPERATION_TIMEOUT_S)) is not None:
            lines.append(json.loads(text))
        status = process.wait(STOP_TIMEOUT_S)
        return status, lines, last_words(process.errors)
    finally:
        process.close()


class Pair:
    """A dialer and a listener. The listener lives on from one operation to the next until one fails."""

    def __init__(self, dialer: str, listener: str, commands: dict[str, tuple[str, ...]]) -> None:
        self.dialer = dialer
        self.listener = listener
        self._commands = commands
        self._running: Listener | None = None

    @property
    def running(self) -> Listener:
        """The listener, started if it is not running."""
        if self._running is None:
            self._running = Listener(self._commands[self.listener])
        return self._running

    def run(self, operation: str, **options: object) -> list[Line]:
        """The lines of an operation that has to succeed, the one about connecting included."""
        listener = self.running
        try:
            status, lines, errors = dial(self._commands[self.dialer], operation, listener.address, **options)
            told = f"{self.dialer} {operation}: {errors!r}; last line {lines[-1:]}; {self.listener}"
            assert status == 0, f"{told} {listener.describe()}"
            assert errors == "", f"{told} {listener.describe()}"
            assert listener.popen.poll() is None, f"{told} {listener.describe()}"
            assert lines, told
        except BaseException:
            self.close()
            raise
        return lines

    @contextlib.contextmanager
    def holding(self, count: int) -> Iterator[Process]:
        """A dialer that holds `count` connections and does nothing else."""
        address = self.running.address
        process = Process(self._commands[self.dialer], "idle", "-to", address, "-n", str(count))
        try:
            assert process.line(OPERATION_TIMEOUT_S) == f"HELD {count}\n", process.describe()
            yield process
        finally:
            process.close()

    def refuse(self, operation: str, to: str) -> str:
        """Standard error of an operation that has to fail."""
        status, _, errors = dial(self._commands[self.dialer], operation, to)
        assert status == 1, f"exit {status}, {errors!r}"
        return errors

    def quit(self) -> None:
        """Asks the listener to end; the next operation starts a new one."""
        try:
            self.running.quit()
        finally:
            self.close()

    def close(self) -> None:
        """Ends the listener, if it runs."""
        if self._running is not None:
            running, self._running = self._running, None
            running.close()


class Network:
    """Listeners and relays of the matrix; the last of each lives on while the same one is asked for."""

    def __init__(self, commands: Callable[[str], tuple[str, ...]], material: Material) -> None:
        self.command = commands
        self._material = material
        self._running: dict[str, tuple[object, Listener]] = {}

    def listener(self, cell: Cell, route: Route) -> Listener:
        """The listener of `route` in `cell`, behind its relay if it has one."""
        options = cell.listener(self._material, route.listener)
        if route.relay:
            limits = cell.listener(self._material, route.relay_peer) | {"limit": route.limit}
            if route.relay == WORKERS:
                limits |= {"workers": 4}
            relay = self._kept("relay", route.relay_peer, limits)
            options |= {"relay": relay.address}
        elif "relay" in self._running:
            self._end("relay")
        return self._kept("listen", route.listener, options, len(cell.addresses(self._material)))

    def _kept(self, role: str, name: str, options: dict[str, object], count: int = 1) -> Listener:
        key = (name, tuple(options.items()))
        known, running = self._running.get(role, (None, None))
        if running is not None and (known != key or running.popen.poll() is not None):
            self._end(role)
            running = None
        if running is None:
            running = Listener(self.command(name), *flags(options), role=role, count=count)
            self._running[role] = key, running
        return running

    def run(self, cell: Cell, route: Route, operations: str, to: str, **options: object) -> list[Line]:
        """The lines of operations that have to succeed; after a failure all peers are ended."""
        try:
            status, lines, errors = self.attempt(cell, route, operations, to, **options)
            told = f"{route} {operations}: {errors!r}; last line {lines[-1:]}; {self.describe()}"
            assert (status, errors) == (0, ""), told
            assert lines, told
        except BaseException:
            self.close()
            raise
        return lines

    def attempt(
        self, cell: Cell, route: Route, operations: str, to: str, **options: object
    ) -> tuple[int, list[Line], str]:
        """Exit status, lines and standard error of operations that may fail."""
        given = cell.dialer(self._material, route.dialer) | options
        return dial(self.command(route.dialer), operations, spelled(to, route.dialer), **given)

    def refused(self, name: str, arguments: list[str]) -> tuple[int, str]:
        """Exit status and standard error of a listener that should not come up."""
        process = Process(self.command(name), "listen", *arguments)
        try:
            return process.wait(START_TIMEOUT_S), last_words(process.errors)
        finally:
            process.close()

    def describe(self) -> str:
        """The state and output of each listener and relay."""
        return "; ".join(running.describe() for _, running in self._running.values())

    def _end(self, role: str) -> None:
        _, running = self._running.pop(role)
        running.close()

    def close(self) -> None:
        """Ends all that runs."""
        for role in list(self._running):
            self._end(role)
