"""`p2pcore id`: makes, shows and converts keys and peer ids.

Comes in: key files, peer ids as text. Goes out: the same in another form. Only `new` and `convert` print or
write a private key; `show` never does.
"""

from __future__ import annotations

import base64
import os
import sys
from typing import Any

import click

from p2pcore import IdentityError, KeyType, PeerId, PrivateKey, PublicKey
from p2pcore.cli.failure import CommandFailed
from p2pcore.cli.keyfile import (
    FORMATS,
    INPUT_FORMS,
    PRIVATE_MODE,
    PUBLIC_MODE,
    Key,
    load_key,
    shown,
    write_file,
)
from p2pcore.cli.output import Output, OutputFailed, columns
from p2pcore.cli.params import json_option

BINARY = ("protobuf", "der")
TYPES = [kind.name.lower() for kind in sorted(KeyType, key=lambda kind: kind is not KeyType.ED25519)]


@click.group()
def command() -> None:
    """Make, show and convert keys and peer ids."""


@command.command()
@click.option("--type", "kind", type=click.Choice(TYPES), default=TYPES[0], show_default=True)
@click.option("--out", "path", metavar="FILE", help="Write the private key to FILE; only you can read it.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: protobuf in FILE, else base64.")
@click.option("--force", is_flag=True, help="Replace FILE if there is one.")
@json_option
def new(kind: str, path: str | None, form: str | None, force: bool, as_json: bool) -> None:
    """Make a key. Without --out the key is printed and not saved."""
    output = Output(as_json)
    form = form or ("protobuf" if path else "base64")
    if path is None and form in BINARY:
        raise click.UsageError(
            f"{form} is a binary format: give --out FILE, or another --format", click.get_current_context()
        )
    key = PrivateKey.generate(KeyType[kind.upper()])
    data = key.to_form(form)
    rows, fields = describe(key)
    if path is not None:
        write_file(path, data, PRIVATE_MODE, force)
        output.show(columns([*rows, ("written to", path)]), **fields, file=path)
    else:
        text = data.decode()
        output.show(
            columns([*rows, ("private key", "")]) + text.splitlines(), **fields, private_key=text.rstrip("\n")
        )


from_option = click.option(
    "--from",
    "origin",
    type=click.Choice(INPUT_FORMS),
    help="What SOURCE contains, if that is not clear: 32 bytes may be a seed (a private Ed25519 key of "
    "py-libp2p) or a public key.",
)
"""Gives a command what the key file contains, as `origin`."""


@command.command()
@click.argument("source")
@from_option
@json_option
def show(source: str, origin: str | None, as_json: bool) -> None:
    """Show the peer id of SOURCE in all its forms, and its public key.

    SOURCE is a key file (in any format), "-" for standard input, or a peer id.
    """
    rows, fields = describe(load_key(source, origin) if _is_file(source) else _peer_id(source))
    Output(as_json).show(columns(rows), **fields)


def _is_file(source: str) -> bool:
    return source == "-" or os.path.sep in source or os.path.lexists(source)


def _peer_id(source: str) -> PeerId:
    try:
        return PeerId.from_text(source)
    except IdentityError as error:
        if shown(source) != source:
            raise CommandFailed(f"{shown(source)}: neither a file nor a peer id") from None
        raise CommandFailed(f"{source}: neither a file nor a peer id: {error}") from error


@command.command(short_help="Write a key in another format.")
@click.argument("source")
@click.option("--to", "form", type=click.Choice(FORMATS), required=True)
@from_option
@click.option("--public", is_flag=True, help="Write only the public key.")
@click.option("--out", "path", metavar="FILE", help="Write to FILE. Default: standard output.")
@click.option("--force", is_flag=True, help="Replace FILE if there is one.")
@json_option
def convert(
    source: str, form: str, origin: str | None, public: bool, path: str | None, force: bool, as_json: bool
) -> None:
    """Write the key in the file SOURCE ("-": standard input) in another format."""
    key = load_key(source, origin)
    if public and isinstance(key, PrivateKey):
        key = key.public_key
    data = key.to_form(form)
    if path is not None:
        write_file(path, data, PRIVATE_MODE if isinstance(key, PrivateKey) else PUBLIC_MODE, force)
        rows, fields = describe(key)
        Output(as_json).show(columns([*rows, ("written to", path)]), **fields, file=path)
    elif as_json:
        text = base64.b64encode(data).decode() if form in BINARY else data.decode().rstrip("\n")
        Output(as_json).show("", **describe(key)[1], format=form, key=text)
    else:
        _write(data, form)


def _write(data: bytes, form: str) -> None:
    if form in BINARY and sys.stdout.isatty():
        raise CommandFailed(f"{form} is a binary format, and standard output is a terminal: give --out FILE")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OutputFailed from error


def describe(item: Key | PeerId) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Everything public about a key or an id, as rows for people and fields for machines."""
    peer = item if isinstance(item, PeerId) else item.peer_id()
    fields: dict[str, Any] = {
        "peer_id": str(peer),
        "cid_base32": peer.to_base32(),
        "cid_base36": peer.to_base36(),
        "multihash": peer.to_bytes().hex(),
    }
    rows = [("peer id", str(peer)), ("as CID, base32", peer.to_base32())]
    rows += [("as CID, base36", peer.to_base36()), ("multihash", peer.to_bytes().hex())]
    public = _public_key(item)
    if public is not None:
        fields |= {"type": public.type.name.lower(), "public_key": public.to_base64()}
        rows += [("key type", public.type.name.lower()), ("public key", public.to_base64())]
    if not isinstance(item, PeerId):
        fields["has_private_key"] = isinstance(item, PrivateKey)
    return rows, fields


def _public_key(item: Key | PeerId) -> PublicKey | None:
    if isinstance(item, PrivateKey):
        return item.public_key
    if isinstance(item, PublicKey):
        return item
    serialized = item.public_key_bytes()
    try:
        return None if serialized is None else PublicKey.from_protobuf(serialized)
    except IdentityError:
        return None
