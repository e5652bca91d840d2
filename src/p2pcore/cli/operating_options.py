"""The options for whoever operates a node: how it ends, its admin socket, its configuration file.

Comes in: text from the command line. Goes out: an OperatingOptions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from p2pcore import DrainOptions
from p2pcore.cli.gathered import gathered
from p2pcore.cli.params import SecondsType

F = TypeVar("F", bound=Callable[..., Any])

DRAIN_S = 10.0
"""The default of --drain: enough for most programs to answer the requests they have."""


@dataclass(frozen=True, slots=True)
class OperatingOptions:
    """The values of the options below."""

    drain_s: float
    drain_delay_s: float
    refuse_after_s: float
    admin: str | None

    @property
    def drain(self) -> DrainOptions:
        """How peers notice the end of one process. The delay of several is that of their supervisor."""
        return DrainOptions(delay_s=self.drain_delay_s, refuse_after_s=self.refuse_after_s)

    @property
    def stop_s(self) -> float:
        """How long the end may take after a signal."""
        return self.drain_s + self.drain_delay_s


def config_option(function: F) -> F:
    """Adds --config. Its value is read before the others, in `configured`."""
    return click.option(
        "--config",
        metavar="FILE",
        expose_value=False,
        help="File (TOML) with values for the options of this command. Arguments and P2PCORE_... variables "
        "go before it. Default: $P2PCORE_CONFIG.",
    )(function)


_OPTIONS = (
    click.option(
        "--drain",
        "drain_s",
        type=SecondsType(),
        metavar="SECONDS",
        default=DRAIN_S,
        help="How long streams may go on after Ctrl-C or SIGTERM, and when a worker is replaced. "
        f"Default: {DRAIN_S:g}.",
    ),
    click.option(
        "--drain-delay",
        "drain_delay_s",
        type=SecondsType(),
        metavar="SECONDS",
        default=0.0,
        help="How long the node goes on before that, while it only says that it is not ready. For load "
        "balancers. Default: 0.",
    ),
    click.option(
        "--drain-refuse",
        "refuse_after_s",
        type=SecondsType(),
        metavar="SECONDS",
        default=DrainOptions().refuse_after_s,
        help="For how long new streams are still served in a drain; then peers are told to go elsewhere. "
        f"Default: {DrainOptions().refuse_after_s:g}.",
    ),
    click.option(
        "--admin",
        metavar="FILE",
        help="UNIX socket for `p2pcore status` and `p2pcore top`. Only the owner can use it.",
    ),
)

operating_options = gathered(OperatingOptions, "operating", _OPTIONS)
"""Gives a command the values of these options, as `operating`."""
