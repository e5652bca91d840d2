"""Fixtures of the command's tests: a directory to run it in, and a node to talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_driver import Cli, Result


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command, in an empty directory."""
    return Cli(tmp_path)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The multiaddr of a node that serves everything, for a whole module."""
    running = Cli(tmp_path_factory.mktemp("node")).start("listen", "--perf")
    try:
        yield running.line()
        assert running.end() == Result(0, "", "")
    finally:
        running.kill()
