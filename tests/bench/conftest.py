"""Makes the modules of bench/ importable, and gives tests results to work on.

Comes in: nothing. Goes out: fixtures. The suite's tests need the source tree, but no other implementation.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

results_module = pytest.importorskip("results", reason="bench/ is not there: this is not the source tree")


@pytest.fixture
def empty() -> object:
    """Results of three rounds with nothing measured."""
    return results_module.Results("2026-01-02 03:04 UTC", 3, "abc", {"processor": "any"}, {"p2pcore": "1"})
