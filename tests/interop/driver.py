"""Runs one peer against another, by the contract of interop/README.md.

Comes in: peers of interop/build.py. Goes out: the JSON lines of the dialer, or an AssertionError with what
both said. Every wait has a deadline; every process is killed with its group afterwards.
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
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from harness import seconds

ROOT = Path(__file__).resolve().parents[2]

START_TIMEOUT_S = 60.0
OPERATION_TIMEOUT_S = 150.0
STOP_TIMEOUT_S = 15.0

Line = dict[str, Any]


def load_builder() -> ModuleType:
    """interop/build.py as a module; it is a script beside the peers, not part of any package."""
    spec = importlib.util.spec_from_file_location("interop_build", ROOT / "interop" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def last_words(file: IO[str]) -> str:
    """The last 4,000 characters of a process's standard error."""
    file.seek(0)
    return file.read()[-4000:].strip()


class Process:
    """A peer in a process group of its own, its output as lines with deadlines."""

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
        """What it was asked, how it is, and what it said on standard error."""
        return f"[{self.args_text}] exit {self.popen.poll()}, standard error: {last_words(self.errors)!r}"

    def close(self) -> None:
        """Kills the whole group, whatever state it is in. Idempotent."""
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
    """A peer that listens. `address` is where, with its peer id."""

    def __init__(self, command: tuple[str, ...], *args: str) -> None:
        super().__init__(command, "listen", *args)
        try:
            first = self.line(START_TIMEOUT_S)
            assert first is not None, self.describe()
            assert first.startswith("ADDR "), f"{first!r} from {self.describe()}"
        except BaseException:
            self.close()
            raise
        self.address = first.split()[1]

    def ask(self, order: str) -> Line:
        """The answer to `stat` or `gc`."""
        self.say(order)
        answer = self.line(START_TIMEOUT_S)
        assert answer is not None, self.describe()
        parsed: Line = json.loads(answer)
        return parsed

    def wait_for(self, key: str, value: object) -> None:
        """Asks `stat` until it says so."""
        end = time.monotonic() + seconds(STOP_TIMEOUT_S)
        while (said := self.ask("stat"))[key] != value:
            assert time.monotonic() < end, f"{said}, {self.describe()}"

    def quit(self) -> None:
        """Leaves as the contract says, exit status 0."""
        self.say("quit")
        assert self.wait(STOP_TIMEOUT_S) == 0, self.describe()


def dial(command: tuple[str, ...], operation: str, to: str, **options: object) -> tuple[int, list[Line], str]:
    """One operation: exit status, JSON lines, standard error."""
    flags = [text for name, value in options.items() for text in (f"-{name}", str(value))]
    process = Process(command, operation, "-to", to, *flags)
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
        """Asks the listener to leave; the next operation has a new one."""
        try:
            self.running.quit()
        finally:
            self.close()

    def close(self) -> None:
        """Ends the listener, if it runs."""
        if self._running is not None:
            running, self._running = self._running, None
            running.close()
