"""`p2pcore status`: shows what a running node tells about itself, once.

Comes in: the admin socket of the node. Goes out: lines, or one JSON object. With --ready also a status: 1 if
the node drains.
"""

from __future__ import annotations

import click

from p2pcore.cli.admin_options import admin_option, asking
from p2pcore.cli.failure import CommandFailed
from p2pcore.cli.node import run
from p2pcore.cli.node_shown import parts
from p2pcore.cli.output import Output
from p2pcore.cli.params import json_option


@click.command()
@admin_option
@click.option("--ready", is_flag=True, help="Fail if the node drains: it wants no new peers. For probes.")
@json_option
def command(admin: str, ready: bool, as_json: bool) -> None:
    """Show what a running node tells about itself.

    Fails with status 3 if no node answers.
    """
    run(_status(admin, ready, Output(as_json)))


async def _status(admin: str, ready: bool, output: Output) -> None:
    async with asking(admin) as client:
        status = await client.status()
    output.show([line for part in parts(status) for line in part], **status)
    if ready and status["state"] != "serving":
        raise CommandFailed(f"the node is {status['state']}")
