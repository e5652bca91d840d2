"""A nats-server of its own for a test: on a free port, with JetStream in a temporary folder.

Comes in: interop/build.py. Goes out: a server that can be killed, stopped and started again. It is skipped
with the reason where it cannot be built. It listens on the loopback alone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from functools import cache
from pathlib import Path

import pytest

from harness import HANG_S, seconds
from interop_builder import PATH, load_builder


def nats_command() -> tuple[str, ...]:
    """The command of nats-server. Skips the test if there is none."""
    command, reason = _command()
    if not command:
        pytest.skip(f"no nats-server: {reason}")
    return command


@cache
def _command() -> tuple[tuple[str, ...], str]:
    if not PATH.exists():
        return (), "the source tree is not here"
    peer = load_builder().build("nats")
    return peer.command, peer.reason


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class NatsServer:
    """A server. `start` it first.

    Args:
        folder: for its files.
        settings: of its configuration, beside those that every test needs.

    Attributes:
        url: where it listens, also after a new start.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        command = nats_command()
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        config = {"listen": f"127.0.0.1:{self.port}", "jetstream": {"store_dir": str(folder / "jetstream")}}
        path = folder / "nats.conf"
        path.write_text(json.dumps(config | settings))
        self._command = [*command, "--config", str(path)]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it. Returns at once."""
        with (self._folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def wait_ready(self) -> None:
        """Returns when it accepts connections."""
        deadline = time.monotonic() + seconds(HANG_S)
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process is not None
                assert self._process.poll() is None, f"nats-server ended: {self.log()}"
                time.sleep(0.01)
            else:
                return
        raise AssertionError(f"nats-server does not listen: {self.log()}")

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stand_still(self) -> None:
        """It answers nothing, and its sockets stay open."""
        os.kill(self.pid, signal.SIGSTOP)
        while any(_state(path) != "T" for path in Path(f"/proc/{self.pid}/task").glob("*/stat")):
            time.sleep(0.001)  # each thread stops when it is its turn

    def go_on(self) -> None:
        """The end of `stand_still`."""
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """The last 2,000 characters that it wrote."""
        return (self._folder / "nats.log").read_text()[-2000:]

    def rss_bytes(self) -> int:
        """Its resident memory."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _state(path: Path) -> str:
    """What a thread does, of its stat file: T is stopped."""
    return path.read_text().rpartition(")")[2].split()[0]
