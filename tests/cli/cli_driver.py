"""Runs the command as a user does: in a separate process, on free ports.

Comes in: arguments. Goes out: exit status, lines of standard output and standard error. Waits only for
what it expects.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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


class Zygote:
    """A process that has imported the command and forks to run it: see cli_zygote.py."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(seconds(LIMIT_S))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("cli_zygote.py")), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=ENVIRONMENT,
                start_new_session=True,
            )

    def run(self, args: tuple[str, ...], directory: Path, stdin: bytes) -> Result:
        """One command, to its end."""
        (in_, write), (out, out_), (err, err_) = (os.pipe() for _ in range(3))
        order = json.dumps({"args": args, "directory": str(directory)}).encode()
        socket.send_fds(self._socket, [order], [in_, out_, err_])
        for descriptor in (in_, out_, err_):
            os.close(descriptor)
        with ThreadPoolExecutor(3) as pool:
            pool.submit(_write_all, write, stdin)
            said, errors = pool.submit(_read_all, out), pool.submit(_read_all, err)
            try:
                status = json.loads(self._socket.recv(100))
            except BaseException:  # it hangs: do not wait for its output
                os.killpg(self._process.pid, signal.SIGKILL)
                zygote.cache_clear()
                raise
        return Result(status, said.result().decode(), errors.result().decode())

    def __del__(self) -> None:
        self._socket.close()
        self._process.wait()


zygote = functools.cache(Zygote)
"""The zygote of this test run, started when it is first needed."""


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def _write_all(descriptor: int, data: bytes) -> None:
    try:
        with open(descriptor, "wb", buffering=0) as file:
            file.write(data)
    except BrokenPipeError:
        pass


class Cli:
    """Runs commands in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *args: str, stdin: bytes = b"", **variables: str) -> Result:
        if variables:  # the zygote has the environment of the suite
            return self._run_anew(args, stdin, variables)
        return zygote().run(args, self.directory, stdin)

    def _run_anew(self, args: tuple[str, ...], stdin: bytes, variables: dict[str, str]) -> Result:
        done = subprocess.run(
            [*COMMAND, *args],
            input=stdin,
            capture_output=True,
            cwd=self.directory,
            env=ENVIRONMENT | variables,
            timeout=LIMIT_S,
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
        """The next line of standard output; fails if none comes."""
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

    def error_line(self) -> str:
        """The next line of standard error; fails where none comes."""
        stderr = self.process.stderr
        assert stderr is not None
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([stderr.fileno()], [], [], seconds(LIMIT_S))
            assert ready, "no line came"
            byte = os.read(stderr.fileno(), 1)
            assert byte, "the command ended"
            line += byte
        return line.decode().rstrip("\n")

    def _errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def end(self, number: int = signal.SIGINT) -> Result:
        """Sends a signal. Returns: how the command ended."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Result:
        out, err = self.process.communicate(timeout=seconds(LIMIT_S))
        return Result(self.process.returncode, (self._held + out).decode(), err.decode())

    def outcome(self) -> Result:
        """How it ends, while its standard input stays open."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        out, err = self.process.stdout.read(), self.process.stderr.read()
        return Result(self.process.wait(seconds(LIMIT_S)), (self._held + out).decode(), err.decode())

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
