"""`p2pcore identify`: shows what a peer says about itself, and how the connection to it is secured.

Comes in: an address. Goes out: every field of identify. The peer has signed only some of them; it may lie in
the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from p2pcore import Conn, IdentifyInfo, Multiaddr
from p2pcore.cli.node import dialled, run
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.output import Output, columns
from p2pcore.cli.params import target_options


@click.command()
@target_options
def command(target: Multiaddr, any_peer: bool, node: NodeOptions, as_json: bool) -> None:
    """Show what TARGET, a multiaddr ending with /p2p/PEER_ID, says about itself."""
    run(_identify(target, any_peer, node, Output(as_json)))


async def _identify(target: Multiaddr, any_peer: bool, node: NodeOptions, output: Output) -> None:
    async with dialled(target, any_peer, node) as (host, conn):
        fields = describe(conn, await host.identify(conn))
        output.show(_lines(fields), **fields)


def describe(conn: Conn, info: IdentifyInfo) -> dict[str, Any]:
    """Everything that is known about the peer and the connection, as fields for JSON."""
    state = conn.state
    return {
        "peer": str(info.peer),
        "key_type": conn.remote_public_key.type.name.lower(),
        "public_key": conn.remote_public_key.to_base64(),
        "agent_version": info.agent_version,
        "protocol_version": info.protocol_version,
        "protocols": sorted(info.protocols),
        "listen_addrs": _texts(info.listen_addrs),
        "observed_addr": None if info.observed_addr is None else str(info.observed_addr),
        "signed_addrs": None if info.record_addrs is None else _texts(info.record_addrs),
        "signed_seq": None if info.record_addrs is None else info.record_seq,
        "remote_addr": None if conn.remote_multiaddr is None else str(conn.remote_multiaddr),
        "local_addr": str(conn.local_multiaddr),
        "security": state.security,
        "muxer": state.muxer,
        "early_muxer": state.early_muxer,
    }


def _texts(addrs: Iterable[Multiaddr]) -> list[str]:
    return [str(addr) for addr in addrs]


def _lines(fields: dict[str, Any]) -> list[str]:
    """One line for each value. The name is only on the first line of a list."""
    rows = []
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        label = name.replace("_", " ")
        for each in values or [None]:
            rows.append((label, "none" if each in (None, "") else _word(each)))
            label = ""
    return columns(rows)


def _word(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
