"""Codes of go-aways and resets in words."""

from __future__ import annotations

import pytest

from p2pcore import codes
from p2pcore.errors import GoAway, StreamReset


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (codes.CONN_GATED, "connection closed by the peer: gated (0x1007)"),
        (
            codes.CONN_RESOURCE_LIMIT_EXCEEDED,
            "connection closed by the peer: resource limit exceeded (0x1001)",
        ),
        (0, "connection closed by the peer: in good order (0x0)"),
        (1, "connection closed by the peer: protocol error (0x1)"),
        (42, "connection closed by the peer: 0x2a"),
    ],
)
def test_a_go_away_says_what_its_code_means(code: int, text: str) -> None:
    assert str(GoAway(code, True)) == text


def test_codes_of_calls_are_above_those_of_libp2p_in_decimal_and_in_hexadecimal() -> None:
    for code in codes.RpcCode:
        assert codes.RPC_RESET_BASE + code > max(10000, 0x10000)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (codes.STREAM_GATED, "stream reset by us: gated (0x1008)"),
        (codes.STREAM_RESOURCE_LIMIT_EXCEEDED, "stream reset by us: resource limit exceeded (0x1002)"),
        (codes.RPC_RESET_BASE + 4, "stream reset by us: call deadline exceeded (0x10004)"),
        (0, "stream reset by us"),
        (66, "stream reset by us: 0x42"),
    ],
)
def test_a_reset_says_what_its_code_means(code: int, text: str) -> None:
    assert str(StreamReset(code, False)) == text
