"""What it costs to make a host: programs of tests make thousands, and a fleet starts many at once."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from p2pcore import Host, PrivateKey

MAX_CALLS = 700
"""Calls of Python functions: 521 with Python 3.11. To parse the networks of limits anew took 1,200 more."""


def test_a_host_parses_nothing_that_the_one_before_has_parsed() -> None:
    key = PrivateKey.generate()
    Host(key)
    calls: list[str] = []

    def trace(frame: FrameType, event: str, arg: Any) -> None:
        calls.append(frame.f_code.co_qualname if event == "call" else "")

    sys.setprofile(trace)
    try:
        Host(key)
    finally:
        sys.setprofile(None)
    made = [each for each in calls if each]
    assert not [each for each in made if each == "ip_network"]
    assert len(made) < MAX_CALLS, f"{len(made)} calls"
