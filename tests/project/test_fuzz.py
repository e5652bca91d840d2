"""The fuzz targets on the ordinary build: every input that is kept, and faults that a target must find.

Comes in: seeds and corpora of fuzz/. Goes out: each target's promise; and that the promise can be broken.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
MAX_CORPORA_BYTES = 200_000

pytestmark = pytest.mark.source
if not FUZZ.exists():
    pytest.skip("only where the source tree is", allow_module_level=True)
sys.path.insert(0, str(FUZZ))
try:
    import seeds
    from promise import BrokenPromise, cut, same
    from targets import TARGETS
finally:
    sys.path.remove(str(FUZZ))


def test_every_target_has_seeds_and_every_seed_a_target() -> None:
    assert TARGETS.keys() == seeds.SEEDS.keys()


def test_the_corpora_stay_small() -> None:
    assert sum(each.stat().st_size for each in seeds.CORPORA.glob("*")) <= MAX_CORPORA_BYTES


@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_keeps_the_promise(name: str) -> None:
    for content in seeds.corpus(name).values():
        TARGETS[name](content)


def test_an_input_is_cut_in_the_same_way_each_time_and_whole_again() -> None:
    for n in (1, 5, 64, 300):
        data = bytes(range(256)) * 2
        assert cut(data[:n]) == cut(data[:n])
        assert b"".join(cut(data[:n])) == data[:n]


def test_a_difference_breaks_the_promise() -> None:
    with pytest.raises(BrokenPromise, match="depends"):
        same(1, 2, "it depends")


def test_a_parser_that_raises_anything_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("p2pcore.protocols.identify_message.protocols_of", fails)
    for content in seeds.SEEDS["identify"]():
        with pytest.raises(KeyError):
            TARGETS["identify"](content)
