"""Honest clients as busy as an attacker, at a node with default limits: nothing is refused."""

from __future__ import annotations

import pytest
from attacked import node

from attacks import place, twin
from harness import looped
from p2pcore import Host, TcpOptions


def _hosts(count: int) -> twin.Twin:
    source = TcpOptions(dial_from=place.honest(0))
    return twin.Twin([Host(listen=(), identify=False, tcp=source) for _ in range(count)])


@pytest.mark.parametrize("work", ["streams", "timeouts", "calls"])
def test_one_busy_connection_is_never_refused(work: str) -> None:
    @looped
    async def main() -> None:
        async with node() as host:
            assert await getattr(_hosts(1), work)(host.addrs_with_peer[0]) == 0

    main()


@looped
async def test_an_office_connects_at_once_from_one_address() -> None:
    async with node() as host:
        assert await _hosts(twin.OFFICE).office(host.addrs_with_peer[0]) == 0


@looped
async def test_forty_updates_of_identify_are_all_taken() -> None:
    async with node(identify=True) as host:
        assert await _hosts(1).updates(host.addrs_with_peer[0]) == 0
