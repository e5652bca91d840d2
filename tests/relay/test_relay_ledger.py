"""The accounts of a relay that is several processes: who holds what, and what ends with a process."""

from __future__ import annotations

import pytest

from p2pcore import PrivateKey, RelayOptions
from p2pcore.relay.ledger import Ledger, NotPermitted
from p2pcore.relay.messages import Status
from virtual_time import virtual

A, B, C = (PrivateKey.from_seed(bytes([seed]) * 32).peer_id() for seed in range(3))


@virtual
async def test_a_circuit_goes_to_the_newest_holder_and_the_reservation_ends_with_the_last() -> None:
    ledger = Ledger(RelayOptions(), lambda: 0.0)
    ledger.reserve("one", A, "ip", 10.0)
    ledger.reserve("two", A, "ip", 10.0)
    assert ledger.num_reservations == 1
    assert ledger.open("three", 1, B, "ip", A) == "two"
    ledger.reserve("one", A, "ip", 20.0)  # renewed
    assert ledger.open("three", 2, B, "ip", A) == "one"
    ledger.release("one", A)
    assert ledger.open("three", 3, B, "ip", A) == "two"
    ledger.release("one", A)
    ledger.release("two", A)
    assert ledger.num_reservations == 0
    with pytest.raises(NotPermitted) as caught:
        ledger.open("three", 4, B, "ip", A)
    assert caught.value.status is Status.NO_RESERVATION
    for number in range(1, 4):
        ledger.closed("three", number, 0)
    assert not ledger._ips
    assert not ledger._ends


@virtual
async def test_a_holder_that_dies_takes_its_own_with_it_and_nothing_else() -> None:
    ledger = Ledger(RelayOptions(max_reservations_per_ip=2), lambda: 0.0)
    ledger.reserve("one", A, "ip", 10.0)
    ledger.reserve("two", B, "ip", 10.0)
    ledger.open("one", 1, C, "ip", B)
    ledger.open("two", 1, C, "ip", A)
    with pytest.raises(NotPermitted):
        ledger.reserve("two", C, "ip", 10.0)
    ledger.left("one")
    assert (ledger.num_reservations, ledger.num_circuits) == (1, 1)
    ledger.reserve("two", C, "ip", 10.0)
    assert ledger._ends == {C: 1, A: 1}
    ledger.closed("one", 1, 0)  # too late
    ledger.left("two")
    assert (ledger.num_reservations, ledger.num_circuits) == (0, 0)
    assert not ledger._ends
    assert not ledger._sources
    assert not ledger._to_target
    assert not ledger._ips


@virtual
async def test_a_refused_reservation_leaves_the_earlier_one() -> None:
    ledger = Ledger(RelayOptions(max_reservations_per_ip=1), lambda: 0.0)
    ledger.reserve("one", A, "here", 10.0)
    ledger.reserve("one", B, "there", 10.0)
    with pytest.raises(NotPermitted):
        ledger.reserve("two", A, "there", 20.0)
    assert ledger._slots[A].expire == 10.0
    assert list(ledger._slots[A].holders) == ["one"]


@virtual
async def test_what_has_expired_is_not_there() -> None:
    now = 0.0
    ledger = Ledger(RelayOptions(max_reservations=1), lambda: now)
    ledger.reserve("one", A, "ip", 10.0)
    now = 10.0
    with pytest.raises(NotPermitted):
        ledger.open("one", 1, B, "ip", A)
    ledger.reserve("one", B, "ip", 20.0)


@virtual
async def test_new_options_hold_for_what_comes() -> None:
    ledger = Ledger(RelayOptions(), lambda: 0.0)
    ledger.reserve("one", A, "ip", 10.0)
    ledger.set_options(RelayOptions(max_reservations=1))
    with pytest.raises(NotPermitted, match="no more reservations"):
        ledger.reserve("one", B, "ip", 10.0)
    assert ledger.num_reservations == 1
