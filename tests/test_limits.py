"""The bounds fit together: each is positive, and a part is bounded by no more than its whole (W19)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from p2pcore import limits

BOUNDS = {name: value for name, value in vars(limits).items() if name.isupper()}

AT_MOST = [
    ("TCP_CONNECT_TIMEOUT_S", "DIAL_TIMEOUT_S"),
    ("DIAL_TIMEOUT_LOCAL_S", "DIAL_TIMEOUT_S"),
    ("DIAL_TIMEOUT_S", "DIAL_PEER_TIMEOUT_S"),
    ("DNS_TIMEOUT_S", "DIAL_PEER_TIMEOUT_S"),
    ("MAX_DIALS_PER_PEER", "MAX_DIALS"),
    ("MAX_DIAL_CAUSES_SHOWN", "MAX_DIAL_ADDRS"),
    ("MAX_RESOLVED_ADDRS", "MAX_DIAL_ADDRS"),
    ("MAX_DNSADDR_DEPTH", "MAX_DNS_QUERIES"),
    ("DIAL_DELAY_PRIVATE_S", "DIAL_DELAY_PUBLIC_S"),
    ("DIAL_DELAY_PUBLIC_S", "DIAL_DELAY_RELAY_S"),
    ("BLACK_HOLE_MIN_SUCCESSES", "BLACK_HOLE_WINDOW"),
    ("BACKOFF_BASE_S", "BACKOFF_MAX_S"),
    ("BACKOFF_STEP_S", "BACKOFF_BASE_S"),
    ("EVENT_QUEUE_LENGTH", "MAX_EVENT_QUEUE_LENGTH"),
    ("MAX_HANDLERS_PER_CONN", "MAX_HANDLERS_PER_PEER"),
    ("MAX_CONNS_PER_PEER", "MAX_CONNS_PER_SUBNET"),
    ("MAX_CONNS_PER_SUBNET", "MAX_CONNS_PER_SITE"),
    ("MAX_STREAMS_PER_CONN", "MAX_STREAMS_PER_PEER"),
    ("YAMUX_MAX_INBOUND_STREAMS", "MAX_HANDLERS_PER_CONN"),
    ("YAMUX_INITIAL_WINDOW_BYTES", "YAMUX_MAX_WINDOW_BYTES"),
    ("YAMUX_MAX_WINDOW_BYTES", "YAMUX_WINDOW_BUDGET_BYTES"),
    ("ACCEPT_BACKOFF_MIN_S", "ACCEPT_BACKOFF_MAX_S"),
    ("UPGRADE_SLOW_S", "ACCEPT_TIMEOUT_S"),
    ("BEGUN_PER_TURN", "MAX_UPGRADING"),
    ("MAX_UPGRADING", "MAX_WAITING_UPGRADES"),
    ("RESERVED_DESCRIPTORS", "MAX_DESCRIPTORS"),
]


def test_every_bound_is_a_positive_number() -> None:
    numbers = {name: value for name, value in BOUNDS.items() if not isinstance(value, tuple)}
    assert len(numbers) > 100
    assert {name: value for name, value in numbers.items() if not value > 0} == {}


@pytest.mark.parametrize(("part", "whole"), AT_MOST)
def test_a_part_is_bounded_by_no_more_than_the_whole(part: str, whole: str) -> None:
    assert BOUNDS[part] <= BOUNDS[whole]


@pytest.mark.source
def test_every_bound_has_a_reason() -> None:
    body = ast.parse(Path(limits.__file__).read_text()).body
    for at, node in enumerate(body):
        if isinstance(node, ast.AnnAssign):
            reason = body[at + 1] if at + 1 < len(body) else None
            assert isinstance(reason, ast.Expr), ast.unparse(node.target)
