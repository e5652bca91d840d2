"""The command `p2pcore`: docs/cli.md describes it.

Comes in: command-line arguments, standard input. Goes out: lines (or JSON objects, one on each line) on
standard output, one line on standard error if something fails, an exit status. Uses only the public names of
p2pcore. Never shows a traceback, unless P2PCORE_DEBUG is set.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command. `args`: by default sys.argv[1:]. Returns: the exit status, see docs/cli.md."""
    try:
        from p2pcore.cli.app import invoke

        return invoke(args)
    except KeyboardInterrupt:  # before the command has installed its own signal handlers
        return 130
