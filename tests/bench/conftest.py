"""Makes the modules of bench/ importable; without bench/, its tests are skipped.

Goes out: `scripted`, a peer whose behaviour a test chooses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

PROLOGUE = """
import json, sys
op, arguments = sys.argv[1], sys.argv[2:]
def say(line): print(line, flush=True)
def fail(text): print("ERROR", text, file=sys.stderr); sys.exit(1)
def listen():
    say("ADDR /ip4/127.0.0.1/tcp/1234/p2p/Q")
    cpu = 0.0
    for order in sys.stdin:
        cpu += 0.001
        say(json.dumps({"rss": 1000, "cpu": cpu, "conns": 3, "tasks": 1}))
"""


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """The command of a peer that runs this Python after PROLOGUE."""

    def make(body: str) -> tuple[str, ...]:
        path = tmp_path / f"peer{len(list(tmp_path.iterdir()))}.py"
        path.write_text(PROLOGUE + body)
        return sys.executable, str(path)

    return make
