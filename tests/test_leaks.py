"""What connections cost while idle, and what is left of them afterwards: counted, in a subprocess."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import HANG_S, seconds
from p2pcore import limits

CHILD = Path(__file__).parent / "leaks_child.py"
DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

IDLE_CONNS = 200
IDLE_BYTES = 2 * 6000
"""Both ends of an idle, identified connection, without what C libraries hold; no room for any buffer."""
CLOSED_CONNS = 1000


def count(loop: str, mode: str, conns: int) -> Any:
    if 2 * conns + 100 > DESCRIPTORS:
        pytest.skip(f"{conns} connections need {2 * conns} descriptors; {DESCRIPTORS} are allowed")
    command = [sys.executable, str(CHILD), loop, mode, str(conns)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds(2 * HANG_S), check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "nothing was logged, no task was destroyed pending"
    return json.loads(done.stdout)


def grown(result: Any) -> dict[str, int]:
    before, after = result["before"], result["after"]
    return {kind: after[kind] - before.get(kind, 0) for kind in after if after[kind] > before.get(kind, 0)}


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_an_idle_connection_has_no_task_no_timer_and_no_buffer(loop: str) -> None:
    result = count(loop, "idle", IDLE_CONNS)
    more = grown(result)
    assert more["p2pcore.swarm.conn.Conn"] == 2 * IDLE_CONNS
    assert "tasks" not in more
    assert "timers" not in more
    handles = {kind: number for kind, number in more.items() if "Handle" in kind and "Timer" in kind}
    assert sum(handles.values()) < 3
    waiting = ("Future", "Task", "Event", "Lock", "Op", "Stream")
    assert not [kind for kind, number in more.items() if kind.endswith(waiting) and number > 2], more
    assert result["bytes"] / IDLE_CONNS < IDLE_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_closing_a_swarm_with_a_thousand_connections_leaves_nothing(loop: str) -> None:
    result = count(loop, "close", CLOSED_CONNS)
    more = grown(result)
    assert "tasks" not in more
    assert "timers" not in more
    assert "descriptors" not in more
    assert not {kind: number for kind, number in more.items() if kind.startswith("p2pcore")}
    assert not {kind: number for kind, number in more.items() if number > 3}


@pytest.mark.slow
def test_only_so_many_connections_keep_their_ciphers_and_all_go_on_working() -> None:
    result = count("uvloop", "ciphers", limits.MAX_CIPHERED_CHANNELS // 2 + 100)
    assert result == {"unused": 0, "kept": limits.MAX_CIPHERED_CHANNELS, "left": 0}
