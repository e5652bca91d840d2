"""js-libp2p in a page of headless Chromium against p2pcore's WebSocket listeners, by interop/browser/peer.py.

Comes in: a listener for /ws and one for /tls/ws. Goes out: what the page says it did; it compares every byte
itself. Skipped where there is no Chromium.
"""

from __future__ import annotations

import pytest
from driver import Network
from matrix import Cell, Route
from test_pairs import MIB, scaled

pytestmark = pytest.mark.interop

ROUTE = Route("browser", "python")
CELLS = [Cell("ws", "noise", "yamux"), Cell("wss", "noise", "yamux")]


@pytest.mark.parametrize("cell", CELLS, ids=[f"{cell}-{ROUTE}" for cell in CELLS])
def test_a_page_echoes_over_a_websocket(cell: Cell, network: Network) -> None:
    address = network.listener(cell, ROUTE).address
    connect, echo = network.run(cell, ROUTE, "echo", address, bytes=scaled(8 * MIB))
    assert (connect["security"], connect["muxer"]) == ("/noise", "/yamux/1.0.0")
    assert echo == {"op": "echo", "ok": True, "bytes": scaled(8 * MIB)}


def test_a_page_pings_over_a_websocket(network: Network) -> None:
    address = network.listener(CELLS[0], ROUTE).address
    pings = network.run(CELLS[0], ROUTE, "ping", address, n=5)[1:]
    assert len(pings) == 5
    assert all(line["rtt_us"] > 0 for line in pings)
