"""Builds the peers once, gives each test its pair, and counts what ran.

Comes in: interop/build.py. Goes out: the fixture `pair`, skipped with the reason where a toolchain is
missing, and a last line `interop: N ran, M skipped` that counts p2pcore against other implementations only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from driver import Pair, load_builder

PAIR_ID = re.compile(r"test_pairs\.py::.*\b(go|js|python)-to-(go|js|python)\b")


@pytest.fixture(scope="session")
def peers() -> dict[str, Any]:
    """Every peer by name, built or with the reason for not being."""
    builder = load_builder()
    return {name: builder.build(name) for name in builder.BUILDERS}


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest, peers: dict[str, Any]) -> Iterator[Pair]:
    """The pair named by the parameter, (dialer, listener)."""
    dialer, listener = request.param
    for name in (dialer, listener):
        if not peers[name].command:
            pytest.skip(f"no {name} peer: {peers[name].reason}")
    made = Pair(dialer, listener, {name: peers[name].command for name in (dialer, listener)})
    yield made
    made.close()


def _is_foreign(report: Any) -> bool:
    """True for the report of a test of p2pcore with go-libp2p or js-libp2p; what was deselected has none."""
    if not hasattr(report, "when"):
        return False
    found = PAIR_ID.search(getattr(report, "nodeid", ""))
    return found is not None and (found[1] == "python") != (found[2] == "python")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line to grep: a suite in which nothing ran must not look like one that passed."""
    stats = terminalreporter.stats
    reports = [report for found in stats.values() for report in found if _is_foreign(report)]
    if not reports:
        return
    ran = sum(1 for report in reports if report.when == "call" and not report.skipped)
    skipped = sum(1 for report in stats.get("skipped", ()) if _is_foreign(report))
    terminalreporter.write_line(f"interop: {ran} ran, {skipped} skipped")
