"""`p2pcore config`: shows the options that `p2pcore listen` would run with, and where each came from.

Comes in: the options of `listen`, a file, variables. Goes out: a line for each option, or one JSON object.
With --check only whether `listen` would start, as far as that can be known without a socket.
"""

from __future__ import annotations

import os
from typing import Any

import click

from p2pcore import Multiaddr
from p2pcore.cli.configured import ConfiguredCommand, configurable, sources, strangers
from p2pcore.cli.listen_command import listen_options
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.operating_options import OperatingOptions
from p2pcore.cli.output import Output, error_line
from p2pcore.cli.params import json_option
from p2pcore.cli.serving_options import ServingOptions
from p2pcore.cli.tunnel import Serve


@click.command(cls=ConfiguredCommand)
@listen_options
@click.option("--check", is_flag=True, help="Show nothing; fail if `p2pcore listen` would fail.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    addrs: tuple[Multiaddr, ...],
    node: NodeOptions,
    serving: ServingOptions,
    perf: bool,
    served: tuple[Serve, ...],
    workers: int | None,
    operating: OperatingOptions,
    verbose: int,
    check: bool,
    as_json: bool,
) -> None:
    """Show the options of `p2pcore listen`, and where each value came from.

    Takes the same options, file and variables. Also checks them: names, types, files, and whether they fit
    together.
    """
    for warning in strangers(configurable(ctx.command).values(), os.environ):
        error_line(f"p2pcore config: warning: {warning}")
    serving.check(addrs)
    node.private_key(), node.settings(), serving.settings(node, addrs)
    if not check:
        _show(ctx, Output(as_json))


def _show(ctx: click.Context, output: Output) -> None:
    found = sources(ctx)
    rows = {}
    for key, option in configurable(ctx.command).items():
        name = option.name or ""
        rows[key] = {"value": _plain(option, ctx.params[name]), "source": found[name]}
    width = max(map(len, rows))
    values = {key: _text(row["value"]) for key, row in rows.items()}
    broad = max(map(len, values.values()))
    lines = [f"{key:<{width}}  {values[key]:<{broad}}  {row['source']}" for key, row in rows.items()]
    output.show(lines, **rows)


def _plain(option: click.Option, value: Any) -> Any:
    """`value` as JSON can hold it; of a flag, whether it is set."""
    if option.is_flag and not option.count:
        return bool(value) is not (option.flag_value is False)
    if isinstance(value, (list, tuple)):
        return [str(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
