"""Builds the peers once, gives each test its pair, and counts what ran.

Comes in: interop/build.py. Goes out: the fixture `pair`, skipped with the reason if a toolchain is missing,
and a last line `interop: N ran, M skipped` that counts p2pcore against other implementations only.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from certificates import self_signed
from driver import Network, Pair
from matrix import Material

from interop_builder import load_builder

NAMES = r"(?:go|js|python|browser|workers)"
PAIR_ID = re.compile(rf"test_\w+\.py::.*\b({NAMES})-to-({NAMES})(?:-by-({NAMES}))?\b")


@pytest.fixture(scope="session")
def peers() -> dict[str, Any]:
    """Every peer by name: built, or with the reason why not."""
    builder = load_builder()
    return {name: builder.build(name) for name in builder.BUILDERS | builder.BROWSER_BUILDERS}


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


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    """A certificate and a network key in files; sockets are in a separate directory with a short path."""
    place = tmp_path_factory.mktemp("material")
    network = place / "network"
    network.write_text(f"/key/swarm/psk/1.0.0/\n/base16/\n{secrets.token_hex(32)}\n")
    certificate, key = self_signed(place)
    with TemporaryDirectory(prefix="p2p-") as sockets:
        yield Material(certificate, key, network, Path(sockets))


@pytest.fixture(scope="session")
def network(peers: dict[str, Any], material: Material) -> Iterator[Network]:
    """Runs the peers of the matrix; if a peer is missing, the tests that need it are skipped."""

    def command(name: str) -> tuple[str, ...]:
        if not peers[name].command:
            pytest.skip(f"no {name} peer: {peers[name].reason}")
        found: tuple[str, ...] = peers[name].command
        return found

    made = Network(command, material)
    yield made
    made.close()


def _is_foreign(report: Any) -> bool:
    """True for the report of a test of p2pcore with go-libp2p or js-libp2p."""
    if not hasattr(report, "when"):
        return False
    found = PAIR_ID.search(getattr(report, "nodeid", ""))
    names = {name for name in found.groups() if name} if found else set()
    return bool(names & {"python", "workers"}) and bool(names - {"python", "workers"})


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line to grep: a suite in which nothing ran must not look like one that passed."""
    stats = terminalreporter.stats
    reports = [report for found in stats.values() for report in found if _is_foreign(report)]
    if not reports:
        return
    ran = sum(1 for report in reports if report.when == "call" and not report.skipped)
    skipped = sum(1 for report in stats.get("skipped", ()) if _is_foreign(report))
    terminalreporter.write_line(f"interop: {ran} ran, {skipped} skipped")
