"""`p2pcore psk`: makes the key of a private network, and shows the fingerprint of a key.

Comes in: key files. Goes out: key files, fingerprints. `new` writes the key to a file or to standard output.
`show` never prints the key.
"""

from __future__ import annotations

import click

from p2pcore import PSK
from p2pcore.cli.keyfile import PRIVATE_MODE, load_psk, write_file
from p2pcore.cli.output import Output, columns
from p2pcore.cli.params import json_option


@click.group()
def command() -> None:
    """Make and show keys of private networks."""


@command.command()
@click.option("--out", "path", metavar="FILE", help="Write the key to FILE; only you can read it.")
@click.option("--force", is_flag=True, help="Replace FILE if there is one.")
@json_option
def new(path: str | None, force: bool, as_json: bool) -> None:
    """Make a key in the format of go-libp2p's swarm.key. Without --out the key is printed and not saved."""
    psk = PSK.generate()
    rows = [("fingerprint", psk.fingerprint)]
    output = Output(as_json)
    if path is not None:
        write_file(path, psk.encode(), PRIVATE_MODE, force)
        output.show(columns([*rows, ("written to", path)]), fingerprint=psk.fingerprint, file=path)
    elif as_json:
        output.show("", fingerprint=psk.fingerprint, key=psk.encode().decode())
    else:
        output.show(psk.encode().decode().splitlines())


@command.command()
@click.argument("source")
@json_option
def show(source: str, as_json: bool) -> None:
    """Show the fingerprint of the key in the file SOURCE ("-": standard input), to compare two keys."""
    psk = load_psk(source)
    Output(as_json).show(columns([("fingerprint", psk.fingerprint)]), fingerprint=psk.fingerprint)
