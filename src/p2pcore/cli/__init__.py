"""The command `p2pcore`: docs/cli.md describes it.

Comes in: command-line arguments, standard input. Goes out: lines (or JSON objects, one a line) on standard
output, one line on standard error where something fails, an exit status. Uses only what a program can use:
the public names of p2pcore. Never shows a traceback, unless P2PCORE_DEBUG is set.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command; `args` are sys.argv[1:] by default. Returns: the exit status, see docs/cli.md."""
    try:
        from p2pcore.cli.app import invoke

        return invoke(args)
    except KeyboardInterrupt:  # before a command has its own way of ending
        return 130
