"""Programs of the system that judge our files: promtool, docker compose.

Comes in: a command. Goes out: its exit status, and what it printed. The caller skips what is not installed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import HANG_S, seconds


def said_by(
    command: Sequence[str | Path], *, page: str = "", env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """(the exit status, both outputs in one text). `page`: its standard input. `env`: None: ours."""
    done = subprocess.run(
        command,
        input=page,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds(HANG_S),
        check=False,
    )
    return done.returncode, done.stdout
