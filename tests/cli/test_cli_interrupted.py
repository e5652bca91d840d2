"""Ctrl-C while the command still imports its modules ends it silently.

Comes in: the name of a module; its import raises what Python raises at SIGINT. Goes out: the exit status.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness import seconds

LIMIT_S = 30
INTERRUPTED = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from p2pcore.cli import main
sys.exit(main(["listen"]))
"""


def ended(program: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds(LIMIT_S), check=False)
    return done.returncode, done.stdout, done.stderr.strip()


@pytest.mark.parametrize(
    "name",
    [
        *("click", "p2pcore.cli.app", "p2pcore.cli.listen_command", "asyncio", "p2pcore.host"),
        *("cryptography", "p2pcore._fast.mux.yamux", "p2pcore.security.noise", "uvloop"),
    ],
)
def test_an_interrupted_import_ends_the_command_silently(name: str) -> None:
    assert ended(INTERRUPTED.format(name=name)) == (130, "", "")


def test_outside_of_main_the_command_imports_next_to_nothing() -> None:
    """Nobody can catch a Ctrl-C there. importlib comes first: an editable install needs more of it."""
    program = (
        "import sys, __future__, importlib.machinery, importlib.util; before = set(sys.modules)\n"
        "import p2pcore.cli; print(*set(sys.modules) - before)"
    )
    status, out, _ = ended(program)
    assert status == 0
    assert set(out.split()) <= {"p2pcore", "p2pcore.values", "p2pcore.values.version", "p2pcore.cli"}
