"""`p2pcore addr`: explains multiaddrs, component by component.

Comes in: text, or hex of the binary form. Goes out: both forms, every component, the class of the address
(loopback, private, public). Never resolves a name.
"""

from __future__ import annotations

from typing import Any

import click

from p2pcore import AddressError, IdentityError, LimitExceeded, Multiaddr
from p2pcore.cli.output import Output, columns
from p2pcore.cli.params import AddressParam, json_option


class AnyAddressType(AddressParam):
    """A multiaddr of any protocol, as text or as hex."""

    name = "multiaddr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Multiaddr:
        if isinstance(value, Multiaddr):
            return value
        try:
            return Multiaddr(value if value.startswith("/") else self._bytes(value, param, ctx))
        except (AddressError, IdentityError, LimitExceeded) as error:
            self.fail(str(error), param, ctx)

    def _bytes(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        try:
            return bytes.fromhex(value.removeprefix("0x"))
        except ValueError:
            self.fail(f"{value!r} must be text that begins with '/', or hex", param, ctx)


@click.command()
@click.argument("addrs", nargs=-1, required=True, type=AnyAddressType(), metavar="MULTIADDR...")
@json_option
def command(addrs: tuple[Multiaddr, ...], as_json: bool) -> None:
    """Explain each MULTIADDR: text beginning with "/", or hex of its binary form."""
    output = Output(as_json)
    for number, addr in enumerate(addrs):
        lines, fields = explain_addr(addr)
        output.show(["", *lines] if number else lines, **fields)


def explain_addr(addr: Multiaddr) -> tuple[list[str], dict[str, Any]]:
    """The explanation of an address, as lines for people and fields for machines."""
    components = [
        {"code": protocol.code, "name": protocol.name, "value": value, "hex": part.to_bytes().hex()}
        for part in addr.split()
        for protocol, value in part.items()
    ]
    kinds = classify(addr)
    peer = addr.peer_id
    fields = {
        "text": str(addr),
        "hex": addr.to_bytes().hex(),
        "bytes": len(addr.to_bytes()),
        "components": components,
        "classes": kinds,
        "peer_id": None if peer is None else str(peer),
    }
    rows = [("text", str(addr)), ("hex", addr.to_bytes().hex()), ("bytes", str(len(addr.to_bytes())))]
    rows.append(("class", ", ".join(kinds) or "none"))
    if peer is not None:
        rows.append(("peer", str(peer)))
    return [*columns(rows), *_table(components)], fields


def _table(components: list[dict[str, Any]]) -> list[str]:
    rows = [("code", "protocol", "value", "hex")]
    rows += [(str(c["code"]), c["name"], c["value"] or "", c["hex"]) for c in components]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  " + "  ".join(f"{text:<{width}}" for text, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in rows
    ]


def classify(addr: Multiaddr) -> list[str]:
    """The classes of an address: "loopback", "private" and so on."""
    claims = {
        "loopback": addr.is_loopback,
        "private": addr.is_private,
        "public": addr.is_public,
        "unspecified": addr.is_unspecified,
        "relayed": addr.is_relayed,
    }
    return [name for name, is_so in claims.items() if is_so]
