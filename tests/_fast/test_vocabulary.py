"""One verb, one meaning: compiled modules name endings by the verbs of the table in `Layer`'s docstring.

Comes in: the source of `_fast`. Goes out: a failure that names the method, the logger or the head of a file.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from p2pcore._fast.chain.layer import Layer

FAST = Path(__file__).parents[2] / "src" / "p2pcore" / "_fast"
SOURCES = sorted(path for path in FAST.glob("*/*.p[yx][xd]"))

RETIRED = {"abandoned", "end", "farewell", "finish", "give_up", "leave", "quit", "stop", "terminate"}
"""Verbs that said the same as one of the table, or several things at once."""

LOGGER = re.compile(r"^(\w+) = logging\.getLogger", re.MULTILINE)


def methods(text: str) -> set[str]:
    """Names of methods; one underscore in front makes no difference."""
    named = re.findall(r"^    (?:def|c(?:p)?def [\w ]*?\*?)\s*(\w+)\(self", text, re.MULTILINE)
    return {name.removeprefix("_") for name in named}


@pytest.mark.source
@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(FAST)))
def test_no_method_has_a_retired_verb_for_its_name(path: Path) -> None:
    # Lazy negotiation gives up a stream in `Stream._give_up`.
    allowed = {"give_up"} if path.stem == "stream" else set()
    assert methods(path.read_text()) & (RETIRED - allowed) == set()


@pytest.mark.source
@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(FAST)))
def test_every_logger_is_named_logger(path: Path) -> None:
    assert set(LOGGER.findall(path.read_text())) <= {"logger"}


@pytest.mark.source
def test_a_pxd_beside_its_pyx_only_points_there() -> None:
    for path in FAST.glob("*/*.pxd"):
        if path.with_suffix(".pyx").exists():
            first, second = path.read_text().split("\n")[:2]
            assert first == f"# See {path.stem}.pyx.", path
            assert not second.startswith("#"), path


def test_the_table_of_endings_has_the_verbs_of_the_api() -> None:
    table = Layer.__doc__ or ""
    for verb in (
        "close()",
        "close_write()",
        "close_read()",
        "abort()",
        "reset(code)",
        "shut()",
        "drop(error)",
        "lost(error)",
    ):
        assert verb in table
