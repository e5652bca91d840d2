"""Every way to build a connection, p2pcore with go-libp2p and js-libp2p, both ways: the cells of matrix.py.

Comes in: cells and routes. Goes out: one test each, in which one dialer does every operation on one
connection. P2PCORE_INTEROP_FULL=1 moves the whole 64 MiB and 1,000 streams in every cell that can take it,
not only in those of `CORE`; P2PCORE_INTEROP_CONTROLS=1 puts the others against each other too. Sizes heed
P2PCORE_INTEROP_SCALE as in test_pairs.py.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from driver import Line, Network, dial, flags
from matrix import CORE, DIRECT, WORKERS, Cell, Material, Route, meetings
from test_pairs import AGENTS, MIB, SERVED, bare, peer_id_of, scaled

pytestmark = pytest.mark.interop

FULL = os.environ.get("P2PCORE_INTEROP_FULL") == "1"
OPERATIONS = ("ping", "identify", "echo", "streams", "halfclose", "reset")
PINGS = 5
ANOTHER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"

MEETINGS = meetings(controls=os.environ.get("P2PCORE_INTEROP_CONTROLS") == "1")
each_meeting = pytest.mark.parametrize(
    ("cell", "route"), [pytest.param(*each, id=f"{each[0]}-{each[1]}") for each in MEETINGS]
)


def amounts(cell: Cell, route: Route) -> tuple[int, int]:
    """Bytes to echo, streams at once."""
    whole = cell in CORE or (FULL and not cell.is_tender(route))
    return (scaled(64 * MIB), 1000) if whole else (scaled(8 * MIB), 200)


def check_identify(told: Line, address: str, cell: Cell, route: Route) -> None:
    """Both sides know who the other is; over a direct connection also where."""
    remote = told["remote"]
    for said, name in ((told, route.listener), (remote, route.dialer)):
        assert peer_id_of(bytes.fromhex(said["public_key"])) == said["peer_id"]
        assert said["agent"].startswith(AGENTS[name])
    assert set(told["protocols"]) >= SERVED
    assert told["peer_id"] == address.rpartition("/")[2]
    if cell.transport in ("tcp", "ws", "wss", "shared"):
        assert bare(address) in told["addrs"]
        assert told["record_addrs"] is not None
        assert bare(told["observed"]).startswith("/ip4/127.0.0.1/tcp/")


def check_reset(told: Line, cell: Cell, route: Route) -> None:
    """yamux carries a code where the stack shows and sends one; mplex has none."""

    def expected(sender: str, reader: str, code: int) -> set[Any]:
        if reader == "js":
            return {None}
        return {None, 0} if cell.muxer == "mplex" else {0 if sender == "js" else code}

    assert told["ok"] is True
    assert told["remote_code"] in expected(route.dialer, route.listener, 66)
    assert told["code"] in expected(route.listener, route.dialer, 77)


@each_meeting
def test_a_connection_carries_everything(cell: Cell, route: Route, network: Network) -> None:
    total, streams = amounts(cell, route)
    address = network.listener(cell, route).address
    lines = network.run(
        cell, route, ",".join(OPERATIONS), address, n=PINGS, bytes=total, c=streams, size=1024
    )
    connect, *results = lines
    assert (connect["security"], connect["muxer"]) == cell.connects(route)
    assert [line["op"] for line in results] == ["ping"] * PINGS + list(OPERATIONS[1:])
    told = {line["op"]: line for line in results}
    check_identify(told["identify"], address, cell, route)
    assert told["echo"] == {"op": "echo", "ok": True, "bytes": total}
    assert (told["streams"]["ok"], told["streams"]["c"], told["streams"]["size"]) == (True, streams, 1024)
    assert told["halfclose"] == {"op": "halfclose", "ok": True, "bytes": total}
    check_reset(told["reset"], cell, route)


SHARED = [each for each in MEETINGS if each[0].transport == "shared"]


@pytest.mark.parametrize(
    ("cell", "route"), [pytest.param(*each, id=f"{each[0]}-{each[1]}") for each in SHARED]
)
def test_one_port_takes_every_kind_of_connection(cell: Cell, route: Route, network: Network) -> None:
    addresses = network.listener(cell, route).addresses
    ports = {bare(address).split("/")[4] for address in addresses}
    assert len(addresses) == 3
    assert len(ports) == 1, addresses
    for address in addresses:
        result = network.run(cell, route, "echo", address, bytes=MIB)[-1]
        assert result == {"op": "echo", "ok": True, "bytes": MIB}


LIMITED = [
    Route("python", "python", "go", MIB),
    Route("python", "python", "js", MIB),
    Route("go", "python", "python", MIB),
    Route("js", "python", "python", MIB),
    Route("python", "go", "python", MIB),
    Route("python", "js", "python", MIB),
    Route("go", "python", WORKERS, MIB),
    Route("python", "js", WORKERS, MIB),
]


@pytest.mark.parametrize("route", LIMITED, ids=str)
def test_a_relay_with_a_limit_carries_that_much_and_no_more(route: Route, network: Network) -> None:
    cell = Cell("relayed", "noise", "yamux")
    address = network.listener(cell, route).address
    assert network.run(cell, route, "echo", address, bytes=MIB // 4)[-1]["ok"] is True
    status, lines, errors = network.attempt(cell, route, "echo", address, bytes=4 * MIB)
    assert (status, [line["op"] for line in lines]) == (1, ["connect"])
    assert errors.startswith("ERROR ")


@pytest.mark.parametrize("route", DIRECT, ids=str)
def test_a_stranger_to_the_network_is_refused(route: Route, network: Network) -> None:
    cell = Cell("tcp", "noise", "yamux", private=True)
    address = network.listener(cell, route).address
    status, lines, errors = dial(network.command(route.dialer), "ping", address, n=1)
    assert (status, lines) == (1, [])
    assert errors.startswith("ERROR ")


@pytest.mark.parametrize("security", ["tls", "plaintext"])
@pytest.mark.parametrize("route", DIRECT, ids=str)
def test_a_listener_with_another_identity_is_refused(security: str, route: Route, network: Network) -> None:
    """Over Noise: test_pairs.py."""
    cell = Cell("tcp", security, "yamux")
    other = bare(network.listener(cell, route).address) + f"/p2p/{ANOTHER}"
    status, lines, errors = network.attempt(cell, route, "ping", other, n=1)
    assert (status, lines) == (1, [])
    assert errors.startswith("ERROR ")


@pytest.mark.parametrize("route", DIRECT, ids=str)
def test_a_certificate_nobody_vouches_for_is_refused(route: Route, network: Network) -> None:
    cell = Cell("wss", "noise", "yamux")
    address = network.listener(cell, route).address
    status, lines, errors = dial(network.command(route.dialer), "ping", address, n=1)
    assert (status, lines) == (1, [])
    assert errors.startswith("ERROR ")
    assert network.run(cell, route, "ping", address, n=1)[-1]["rtt_us"] > 0


def test_what_a_stack_cannot_do_is_said(network: Network, material: Material) -> None:
    """The table of interop/README.md, as far as no test leaves it out silently."""
    for name, cell in (
        ("go", Cell("unix", "noise", "yamux")),
        ("js", Cell("shared", "noise", "yamux")),
        ("go", Cell("shared", "noise", "yamux", private=True)),
    ):
        assert cell.lacks(name, name)
        status, errors = network.refused(name, flags(cell.listener(material, name)))
        assert status == 1, f"{name} {cell}"
        assert errors.splitlines()[-1].startswith("ERROR "), f"{name} {cell}: {errors!r}"
