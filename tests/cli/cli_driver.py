"""Runs the command as a user does: in a subprocess, on free ports.

Comes in: arguments. Goes out: exit status, lines of standard output and standard error. Waits for what it
expects and for nothing else.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness import HANG_S, seconds

COMMAND = (sys.executable, "-m", "p2pcore.cli")
ENVIRONMENT = {**os.environ, "PYTHONIOENCODING": "utf-8"}
ENVIRONMENT.pop("P2PCORE_DEBUG", None)
LIMIT_S = HANG_S


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str


class Cli:
    """Runs commands in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *args: str, stdin: bytes = b"") -> Result:
        done = subprocess.run(
            [*COMMAND, *args],
            input=stdin,
            capture_output=True,
            cwd=self.directory,
            env=ENVIRONMENT,
            timeout=seconds(LIMIT_S),
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *args: str, stdin: int = subprocess.DEVNULL) -> Running:
        return Running(args, self.directory, stdin)


class Running:
    """A command under way."""

    def __init__(self, args: tuple[str, ...], directory: Path, stdin: int) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *args],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
            env=ENVIRONMENT,
        )
        self._held = b""

    def line(self) -> str:
        """The next line of standard output; fails where none comes."""
        stdout = self.process.stdout
        assert stdout is not None
        while b"\n" not in self._held:
            ready, _, _ = select.select([stdout], [], [], seconds(LIMIT_S))
            assert ready, "no line came"
            data = os.read(stdout.fileno(), 65536)
            assert data, f"the command ended: {self._errors()}"
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return line.decode()

    def _errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def end(self, number: int = signal.SIGINT) -> Result:
        """Sends a signal, and how the command ended."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Result:
        out, err = self.process.communicate(timeout=seconds(LIMIT_S))
        return Result(self.process.returncode, (self._held + out).decode(), err.decode())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.communicate()


def assert_fails(result: Result, status: int, text: str) -> None:
    """One line on standard error that says `text`, no traceback, and that exit status."""
    assert (result.status, result.out) == (status, ""), result
    assert result.err.count("\n") == 1, result.err
    assert text in result.err, result.err
    assert "Traceback" not in result.err
