"""Guesses where a peer is: what is learned, what is forgotten, and that the table keeps its size."""

from __future__ import annotations

import random

from hypothesis import given, strategies as st

from p2pcore import PeerId
from p2pcore.fleet.directory import Place, lease_of
from p2pcore.fleet.hints import Hints, marks_of
from p2pcore.limits import BUS_MAX_VALUE_BYTES, FLEET_MAX_NEWS


def ids(count: int, seed: int = 1) -> list[PeerId]:
    drawn = random.Random(seed)
    return [PeerId(bytes((0x12, 0x20)) + drawn.randbytes(32)) for _ in range(count)]


def test_the_process_that_was_noted_last_is_guessed() -> None:
    hints = Hints(8)
    a, b, c = ids(3)
    hints.note(marks_of([a, b]), "one")
    hints.note(marks_of([b]), "two")
    assert [hints.guess(peer) for peer in (a, b, c)] == ["one", "two", None]


def test_what_was_wrong_and_what_has_ended_is_not_guessed() -> None:
    hints = Hints(8)
    a, b = ids(2)
    hints.note(marks_of([a]), "one")
    hints.note(marks_of([b]), "two")
    hints.forget(a)
    hints.ended("two")
    hints.ended("never seen")
    assert [hints.guess(peer) for peer in (a, b)] == [None, None]


def test_a_peer_that_takes_the_place_of_another_one_is_told_from_it() -> None:
    hints = Hints(0)  # one place
    a, b = ids(2)
    hints.note(marks_of([a]), "one")
    assert hints.guess(b) is None
    hints.note(marks_of([b]), "two")
    assert [hints.guess(peer) for peer in (a, b)] == [None, "two"]


def test_200_000_peers_are_nearly_all_guessed_right_and_cost_four_mebibytes() -> None:
    hints, peers = Hints(), ids(200_000)
    size = len(hints._places) * hints._places.itemsize
    for number in range(20):
        hints.note(marks_of(peers[number::20]), f"w{number}")
    right = sum(hints.guess(peer) == f"w{number % 20}" for number, peer in enumerate(peers[:5000]))
    assert right > 4000
    assert size == len(hints._places) * hints._places.itemsize == 4 * 1024 * 1024


def test_processes_that_come_and_go_for_ever_need_no_more_numbers() -> None:
    hints = Hints(4)
    (peer,) = ids(1)
    for number in range(200_000):
        hints.note(marks_of([peer]), f"p{number}")
        hints.ended(f"p{number}")
    assert len(hints._names) == 2


def test_more_processes_than_there_are_numbers_are_not_guessed() -> None:
    hints = Hints(4)
    (peer,) = ids(1)
    for number in range(0x1_0000):
        hints.note(marks_of([peer]), f"p{number}")
    assert hints.guess(peer) == f"p{0xFFFE}"
    hints.ended("p0")
    hints.note(marks_of([peer]), "late")
    assert hints.guess(peer) == "late"


@given(st.binary(max_size=50))
def test_any_bytes_are_taken_for_marks(marks: bytes) -> None:
    Hints(4).note(marks, "one")


def test_the_longest_news_fit_into_a_lease() -> None:
    (peer,) = ids(1)
    place = Place("p" * 20, "m" * 256, 2**31, peer, 2**31, True)
    assert len(lease_of(place, 2**63, marks_of([peer] * FLEET_MAX_NEWS))) <= BUS_MAX_VALUE_BYTES
