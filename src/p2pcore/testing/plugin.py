"""The pytest plugin: fixtures for tests with hosts. pytest loads it in every environment that has p2pcore.

Comes in: tests that ask for a fixture. Goes out: a network in memory for each; if the test fails, its seed is
shown. Works the same under pytest-asyncio, anyio and `virtual`, because no fixture is asynchronous. Loads
nothing of p2pcore until a test asks.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from p2pcore.host import Host
    from p2pcore.testing.network import Network


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --p2p-seed."""
    group = parser.getgroup("p2pcore")
    group.addoption(
        "--p2p-seed",
        type=int,
        metavar="N",
        help="the seed of the networks of p2p_network; by default each test has its own, from its name",
    )


@pytest.fixture
def p2p_network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """A p2pcore.testing.Network of this test. A host that the test leaves open is an error."""
    from p2pcore.testing.network import Network

    seed = request.config.getoption("p2p_seed")
    network = Network(seed=zlib.crc32(request.node.nodeid.encode()) if seed is None else seed)
    request.node.add_report_section("setup", "p2pcore", f"the network's seed: --p2p-seed={network.seed}")
    yield network
    if left := len(network.open_hosts):
        pytest.fail(f"{left} host(s) were not closed: use `async with network.host() as host`", pytrace=False)


@pytest.fixture
def p2p_pair(p2p_network: Network) -> Callable[..., AbstractAsyncContextManager[tuple[Host, Host]]]:
    """Makes connected hosts: `async with p2p_pair() as (a, b)`; see Network.pair."""
    return p2p_network.pair
