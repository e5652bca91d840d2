"""A node started as users start it, with nobody who reads its output; and what an operator does to it.

Comes in: arguments of `p2pcore listen`. Goes out: the same as a Listener, with figures from /proc. It ends
with its process group; workers end with their supervisor, and a stopped one is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from peers import Listener, Peer

SCRIPT = '"$0" -m p2pcore.cli "$@" | { read -r first; echo "ADDR $first"; exec sleep 300; }'
NOTICED_S = 25.0
LOOK_S = 0.1


class CliNode(Listener):
    """`p2pcore listen`; after its first line nobody reads its output."""

    def __init__(self, limits: tuple[str, ...], core: int | None, *arguments: str) -> None:
        command = (*limits, "sh", "-c", SCRIPT, sys.executable)
        super().__init__(Peer("p2pcore", command), core, *arguments)
        self._node = next(pid for pid in _children(super().pid) if _is_ours(pid))

    @property
    def pid(self) -> int:
        """The process id of the node, or of its supervisor."""
        return getattr(self, "_node", super().pid)

    def ask(self, order: str) -> dict[str, Any]:
        """Memory and CPU time of the node and its workers, whatever the order."""
        pids = [self._node, *_children(self._node)]
        return {"rss": sum(map(_rss, pids)), "cpu": sum(map(_cpu_s, pids))}

    def stop_a_worker(self) -> dict[str, float]:
        """Stops one worker. Returns: after how many seconds another one has taken its place."""
        before = _children(self._node)
        stopped, began = before[0], time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        try:
            while time.monotonic() < began + NOTICED_S:
                if set(_children(self._node)) - set(before) and stopped not in _children(self._node):
                    return {"replaced after s": time.monotonic() - began}
                time.sleep(LOOK_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGKILL)
        return {}


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return sorted(found)


def _is_ours(pid: int) -> bool:
    return b"p2pcore.cli" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _rss(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
