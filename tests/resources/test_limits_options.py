"""Limits: checked when they are made, defaults that follow from the machine, divided among workers."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from p2pcore import Limits, Reserved
from p2pcore.resources.machine import Machine
from p2pcore.resources.options import AUTO, UNLIMITED
from swarm_fakes import peer

GIB = 1 << 30
SMALL = Machine(memory=GIB, descriptors=1024)
LARGE = Machine(memory=64 * GIB, descriptors=1_048_576)


def test_defaults_follow_from_memory_and_descriptors() -> None:
    """The worked examples of docs/limits.md."""
    small, large = Limits().resolved(SMALL), Limits().resolved(LARGE)
    assert (small.memory, large.memory) == (GIB // 2, 32 * GIB)
    assert (small.max_conns, large.max_conns) == (960, 1_048_512)
    assert (small.max_streams, large.max_streams) == (65_536, 4_194_304)
    assert (small.max_conns_per_subnet, large.max_conns_per_subnet) == (480, 512)
    assert (small.max_conns_per_site, large.max_conns_per_site) == (480, 2048)
    many = Machine(GIB, 1_048_576)
    assert Limits().resolved(many).max_conns == GIB // 2 // (16 * 1024) == 32_768


def test_one_number_changes_what_follows_from_it() -> None:
    assert Limits(memory=GIB).resolved(LARGE).max_conns == 65_536
    assert Limits(memory=GIB).resolved(LARGE).max_streams == 131_072
    assert Limits(max_conns=100).resolved(LARGE).max_conns_per_subnet == 50
    assert Limits(max_conns=1).resolved(LARGE).max_conns_per_subnet == 1
    assert Limits(memory=None, max_conns=None).resolved(LARGE).max_streams is None
    assert Limits(max_conns_per_subnet=9000).resolved(LARGE).max_conns_per_site == 9000
    assert Limits(max_conns_per_subnet=None).resolved(LARGE).max_conns_per_site is None


def test_reserved_descriptors_and_places_are_left_free() -> None:
    limits = Limits(reserved_descriptors=200, reserved=[Reserved(24, "10.0.0.0/8")])
    assert limits.resolved(SMALL).max_conns == 1024 - 200 - 24


def test_a_machine_with_hardly_any_descriptors_takes_a_connection_still() -> None:
    assert Limits().resolved(Machine(GIB, 32)).max_conns == 1


def test_what_is_resolved_stays_as_it_is() -> None:
    resolved = Limits().resolved(SMALL)
    assert resolved.resolved(LARGE) == resolved
    assert UNLIMITED.resolved(SMALL) == UNLIMITED


def test_workers_share_connections_streams_and_memory() -> None:
    limits = Limits(max_conns=1000, max_streams=4000, memory=64 << 20, max_conns_per_subnet=30)
    part = limits.resolved(SMALL, workers=4)
    assert (part.max_conns, part.max_streams, part.memory) == (250, 1000, 16 << 20)
    assert part.max_conns_per_subnet == 30
    assert Limits().resolved(LARGE, workers=4).memory == 8 * GIB
    assert Limits().resolved(SMALL, workers=4).max_conns == 960  # each process has its own descriptors
    assert Limits(max_conns=2).resolved(SMALL, workers=4).max_conns == 1


def test_auto_survives_copies_and_pickles() -> None:
    limits = Limits(max_conns=5)
    for same in (copy.copy(limits), copy.deepcopy(limits), pickle.loads(pickle.dumps(limits))):
        assert same == limits
        assert same.memory is AUTO
    assert "memory=AUTO" in repr(limits)


def wrong_values(declared: str) -> list[Any]:
    if declared.startswith(("int", "float")):
        return [-1, True, "1", 1 << 64]
    return [5, object(), "10.0.0.0/8"]


@pytest.mark.parametrize("field", dataclasses.fields(Limits), ids=lambda field: field.name)
def test_every_field_is_checked(field: dataclasses.Field[Any]) -> None:
    for value in wrong_values(str(field.type)):
        with pytest.raises((TypeError, ValueError), match=rf"{field.name} must be "):
            Limits(**{field.name: value})


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: Limits(max_conns=0), "max_conns must be a whole number from 1 to 2147483647, not 0"),
    (lambda: Limits(memory=1000), "memory must be a whole number from 1048576 to 281474976710656, not 1000"),
    (
        lambda: Limits(conn_rate_per_subnet=0),
        "conn_rate_per_subnet must be a number per second more than 0 and at most 2147483647, not 0",
    ),
    (lambda: Limits(conn_burst_per_subnet=0), "conn_burst_per_subnet must be a whole number from 1"),
    (
        lambda: Limits(max_conns_per_subnet=64, max_conns_per_site=8),
        "max_conns_per_site must be at least max_conns_per_subnet (64), not 8",
    ),
    (
        lambda: Limits(max_conns=4, reserved=[Reserved(4, "10.0.0.0/8")]),
        "reserved must be fewer places than max_conns (4), not 4 places",
    ),
    (
        lambda: Limits(exempt=["10.0.0.0/33"]),
        "each item of exempt must be an address or a network as 10.0.0.0/8, not '10.0.0.0/33'",
    ),
    (lambda: Limits(subnets={"nowhere": 5}), "each key of subnets must be an address or a network"),
    (lambda: Limits(subnets={"10.0.0.0/8": 0}), "subnets['10.0.0.0/8'] must be a whole number from 1"),
    (lambda: Reserved(1), "network must be given, or peer, or both"),
    (lambda: Reserved(0, "10.0.0.0/8"), "places must be a whole number from 1"),
    (lambda: Reserved(1, "x"), "network must be an address or a network as 10.0.0.0/8, not 'x'"),
    (lambda: Reserved(1, peer="x"), "peer must be a peer id, not 'x'"),
]


@pytest.mark.parametrize(("make", "text"), WRONG, ids=[text for _, text in WRONG])
def test_what_is_wrong_or_contradicts_itself_is_named(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert text in str(caught.value)


def test_the_busiest_honest_program_sets_everything() -> None:
    limits = Limits(
        memory=GIB,
        max_conns=10_000,
        max_streams=100_000,
        max_conns_per_peer=100,
        max_conns_per_subnet=1000,
        max_conns_per_site=1000,
        conn_rate_per_subnet=0.2,
        conn_burst_per_subnet=1,
        max_streams_per_conn=1,
        max_streams_per_peer=1,
        max_handlers_per_peer=1,
        reserved_descriptors=0,
        reserved=(
            Reserved(5, "2001:db8::/32"),
            Reserved(1, peer=peer(1)),
            Reserved(2, "10.1.2.3", str(peer(2))),
        ),
        exempt=(),
        subnets={"203.0.113.0/24": 5000, "203.0.113.7": 1},
    )
    assert limits.resolved(SMALL) == limits
