"""The tutorial is played as it stands: its files are written, its commands run, what they print is compared.

Comes in: docs/tutorial.md. Goes out: a failure that names the line. A block `console title="terminal N"` has
commands (`$ ...`) and what they print, with `...` for anything; a line of only `...` stands for any lines.
The sentences "In terminal N, type `...`" and "In terminal N, press Ctrl-C" (or Ctrl-D) are played too.
ADDRESS is the last multiaddr that was printed. Only the port of the listener is another one, which is free.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness import HANG_S, seconds

TUTORIAL = Path(__file__).parent.parent.parent / "docs" / "tutorial.md"

_STEPS = re.compile(
    r"^```python\n# (?P<name>[\w.]+)\n(?P<program>.*?)^```$"
    r'|^```console title="(?P<console>[^"]+)"\n(?P<lines>.*?)^```$'
    r"|In (?P<where>terminal \d), (?:type `(?P<typed>[^`]+)`|press (?P<key>Ctrl-[CD](?: again)?))",
    re.M | re.S,
)

# pytest finds p2pcore's plugin: of an editable install, the finder is imported before pytest can rewrite it.
QUIET = "-W 'ignore:Module already imported'"


class Terminal:
    """One command at a time, as in a terminal: what it prints is read line by line."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def run(self, command: str) -> None:
        self.finish()
        bin_ = str(Path(sys.executable).parent)
        self._process = subprocess.Popen(
            command,
            shell=True,
            cwd=self._directory,
            env=os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}", "PYTEST_ADDOPTS": QUIET},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def expect(self, line: str, is_any: bool) -> str:
        """The next line, which must be `line`; with `is_any`, others may come before it."""
        pattern = ".*".join(map(re.escape, line.split("...")))
        while (found := self._lines.get(timeout=seconds(HANG_S))) is not None:
            if re.fullmatch(pattern, found):
                return found
            assert is_any, f"{found!r} is printed, not {line!r}"
        raise AssertionError(f"the program has ended, and never printed {line!r}")

    def type(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def press(self, key: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        if key == "Ctrl-D":
            self._process.stdin.close()
            return
        os.killpg(self._process.pid, signal.SIGINT)
        while key.endswith("again"):  # two signals at once would be one
            try:
                self._process.wait(timeout=seconds(0.1))
                return
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGINT)

    def finish(self) -> None:
        """Waits until the command has ended. Nothing that it printed may be missing in the tutorial."""
        if self._process is not None:
            self._process.wait(timeout=seconds(HANG_S))
            self._process = None
            assert self._lines.get(timeout=seconds(HANG_S)) is None

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Play:
    """The terminals of one reader, and the address that was printed last."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.terminals = {f"terminal {n}": Terminal(directory) for n in (1, 2, 3)}
        self.address = ""

    def console(self, terminal: Terminal, lines: list[str]) -> None:
        is_any = False
        for line in lines:
            if line.startswith("$ "):
                terminal.run(line[2:].replace("ADDRESS", self.address))
            elif line == "...":
                is_any = True
            else:
                found = terminal.expect(line, is_any)
                is_any = False
                if found.startswith("/"):
                    self.address = found

    def step(self, step: re.Match[str]) -> None:
        if step["name"]:
            (self.directory / step["name"]).write_text(step["program"])
        elif step["console"]:
            self.console(self.terminals[step["console"]], step["lines"].splitlines())
        elif step["typed"]:
            self.terminals[step["where"]].type(step["typed"])
        else:
            self.terminals[step["where"]].press(step["key"])


@pytest.mark.source
def test_the_tutorial_works_as_it_stands(tmp_path: Path) -> None:
    play = Play(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    try:
        for step in _STEPS.finditer(TUTORIAL.read_text().replace("tcp/4001", f"tcp/{port}")):
            play.step(step)
        for terminal in play.terminals.values():
            terminal.finish()
    finally:
        for terminal in play.terminals.values():
            terminal.kill()
