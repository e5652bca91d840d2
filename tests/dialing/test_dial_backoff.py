"""Back-off: how long an address that failed is left alone, and what clears it."""

from __future__ import annotations

import pytest

from p2pcore import limits
from p2pcore.dialing.backoff import DialBackoff, pause
from swarm_fakes import addr, peer

THEM = peer(1)
HERE, THERE = addr(1), addr(2)


def test_the_pause_grows_with_the_square_of_the_failures_up_to_five_minutes() -> None:
    assert [pause(n) for n in (0, 1, 2, 3, 17, 18, 1000)] == [5, 6, 9, 14, 294, 300, 300]


def test_each_failure_makes_the_next_pause_longer() -> None:
    backoff = DialBackoff()
    now = 100.0
    assert backoff.wait(THEM, HERE, now) == 0
    for failures in range(5):
        backoff.failed(THEM, HERE, now)
        assert backoff.wait(THEM, HERE, now) == pause(failures)
        now += pause(failures)
        assert backoff.wait(THEM, HERE, now) == 0


def test_only_that_address_of_that_peer_waits() -> None:
    backoff = DialBackoff()
    backoff.failed(THEM, HERE, 0)
    assert backoff.wait(THEM, THERE, 1) == 0
    assert backoff.wait(peer(2), HERE, 1) == 0
    assert backoff.wait(THEM, HERE, 1) == 4


def test_only_the_address_that_worked_is_cleared() -> None:
    backoff = DialBackoff()
    backoff.failed(THEM, HERE, 0)
    backoff.failed(THEM, THERE, 0)
    backoff.worked(THEM, HERE)
    assert (backoff.wait(THEM, HERE, 1), backoff.wait(THEM, THERE, 1)) == (0, 4)
    backoff.failed(THEM, HERE, 2)
    assert backoff.wait(THEM, HERE, 2) == pause(0), "its streak is forgotten"


def test_a_streak_is_forgotten_when_the_address_was_left_alone_as_long_again() -> None:
    backoff = DialBackoff()
    backoff.failed(THEM, HERE, 0)
    backoff.failed(THEM, HERE, 5)
    assert backoff.wait(THEM, HERE, 5) == pause(1)
    backoff.failed(THEM, HERE, 11 + pause(1) + 1)
    assert backoff.wait(THEM, HERE, 18) == pause(0)


def test_the_table_is_bounded_and_forgets_what_failed_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BACKOFF_ADDRS", 10)
    backoff = DialBackoff()
    for port in range(1, 101):
        backoff.failed(THEM, addr(port), port / 100)
        assert len(backoff) <= 10
    assert backoff.wait(THEM, addr(90), 1) == 0
    assert backoff.wait(THEM, addr(91), 1) > 0


def test_what_is_over_is_swept_as_others_are_added() -> None:
    backoff = DialBackoff()
    for port in range(1, 11):
        backoff.failed(THEM, addr(port), 0)
    backoff.failed(THEM, addr(99), 1000)
    assert len(backoff) == 1
