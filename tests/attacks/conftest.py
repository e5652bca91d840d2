"""Makes bench/ importable, and enough descriptors available; without either, these tests are skipped."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
DESCRIPTORS = 4096

sys.path[:0] = [str(BENCH), str(Path(__file__).parent)]

if not BENCH.is_dir():
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Raises the soft limit for one test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        pytest.skip(f"needs {DESCRIPTORS} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
