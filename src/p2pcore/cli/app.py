"""The list of commands, and how a command ends.

Comes in: arguments. Goes out: an exit status, and one line on standard error if it is not 0. The module of a
command is imported only when that command runs, so that `--help` stays quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from p2pcore import __version__
from p2pcore.cli.failure import BROKEN_PIPE, FAILURE, INTERRUPTED, Failure, explain, reason
from p2pcore.cli.output import OutputFailed, error_line, finish, forgive_output, prepare

COMMANDS = {
    "addr": "Explain multiaddrs, as text or as hex.",
    "config": "Show the options that a node would run with, and where each came from.",
    "connect": "Connect standard input and output to a protocol of a peer, like netcat.",
    "echo": "Send standard input to a peer, print what comes back.",
    "forward": "Forward a local TCP port or UNIX socket to a protocol of a peer.",
    "id": "Make, show and convert keys and peer ids.",
    "identify": "Show what a peer says about itself.",
    "listen": "Run a node that peers can ping, identify and echo from.",
    "perf": "Measure throughput to and from a peer.",
    "ping": "Measure the round-trip time to a peer.",
    "psk": "Make and show keys of private networks.",
    "status": "Show what a running node tells about itself.",
    "top": "Show a running node live.",
}
"""The name of each command and the first line of its help. The module NAME_command has the rest."""

GROUPS = ("id", "psk")
"""The commands that have commands of their own."""

COMPLETE_VARIABLE = "_P2PCORE_COMPLETE"
"""Shell completion scripts of click set this variable. Then the command only completes a line."""

_HELP = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""click 8.2 and later raise this if there are no arguments at all."""


class Commands(click.Group):
    """A group that imports the module of a command only when the command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = import_module(f"p2pcore.cli.{name}_command").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="p2pcore", message="%(prog)s %(version)s")
def commands() -> None:
    """Talk to libp2p peers, or run one.

    \b
    Each command takes --json (one JSON object per line) and --help.
    Exit status: 0 done, 1 failed, 2 wrong usage, 3 peer unreachable, 130 after Ctrl-C.
    """


def invoke(args: Sequence[str] | None) -> int:
    """Runs one command. Returns: its exit status."""
    prepare()
    try:
        return _invoke(args)
    finally:
        finish()


def _invoke(args: Sequence[str] | None) -> int:
    try:
        status = commands.main(
            args, prog_name="p2pcore", complete_var=COMPLETE_VARIABLE, standalone_mode=False
        )
        return status if isinstance(status, int) else 0
    except click.Abort:
        return INTERRUPTED
    except SystemExit as end:
        return _left_by_click(end)
    except Exception as error:
        if os.environ.get("P2PCORE_DEBUG"):
            raise
        return _ended_by(error, _path(sys.argv[1:] if args is None else args))


def _left_by_click(end: SystemExit) -> int:
    """click raises SystemExit after shell completion, and if nobody reads the end of its help: no failure."""
    if os.environ.get(COMPLETE_VARIABLE):
        return end.code if isinstance(end.code, int) else FAILURE
    forgive_output()
    return 0


def _path(args: Sequence[str]) -> str:
    """The command of the user, for instance "p2pcore id new"."""
    names = ["p2pcore", *(name for name in args[:1] if name in COMMANDS)]
    return " ".join([*names, *(name for name in args[1:2] if args[0] in GROUPS and name.isalpha())])


def _ended_by(error: Exception, path: str) -> int:
    if isinstance(error, click.UsageError) and isinstance(error, _HELP):
        error.show()
        return error.exit_code
    if isinstance(error, BrokenPipeError) or (
        isinstance(error, OutputFailed) and isinstance(error.__cause__, BrokenPipeError)
    ):
        forgive_output()
        return BROKEN_PIPE
    failure = explain(error)
    if isinstance(error, OutputFailed):
        forgive_output()
        failure = Failure(FAILURE, f"cannot write to standard output: {reason(error.__cause__ or error)}")
    error_line(f"{path}: {failure.text}")
    return failure.status
