"""The command `p2pcore`: docs/cli.md describes it.

Comes in: command-line arguments, standard input. Goes out: lines (or JSON objects, one on each line) on
standard output, one line on standard error if something fails, an exit status. Uses only the public names of
p2pcore. Never shows a traceback, unless P2PCORE_DEBUG is set. This module imports nothing before `main` runs,
because nobody can catch a Ctrl-C there.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_EXTRA = ("click", "rich")
"""The packages of the extra `cli`."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command. `args`: by default sys.argv[1:]. Returns: the exit status, see docs/cli.md."""
    try:
        return _main(args)
    except KeyboardInterrupt:  # before the command has installed its own signal handlers
        return 130


def _main(args: Sequence[str] | None) -> int:
    import sys
    from importlib.util import find_spec

    for name in _EXTRA:
        if find_spec(name) is None:
            print(f'p2pcore: the command needs {name}: pip install "p2pcore[cli]"', file=sys.stderr)
            return 1
    from p2pcore.cli.app import invoke

    return invoke(args)
