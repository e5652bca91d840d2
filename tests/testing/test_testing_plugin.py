"""The pytest plugin: its fixtures work under pytest-asyncio, anyio and `virtual`; others pay nothing for it.

Comes in: small projects, each run by pytest in a process of its own. Goes out: what it printed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from harness import HANG_S, seconds

pytestmark = pytest.mark.slow

EDITABLE = "ignore:Module already imported so cannot be rewritten; _editable_skbc_p2pcore"
"""What pytest says of the finder of an editable install, and of no other."""

USE = """
async def use(p2p_pair):
    async with p2p_pair(b={"echo": True}) as (a, b):
        stream = await a.new_stream(b.peer_id, "/echo/1.0.0")
        await stream.write(b"hello")
        await stream.close_write()
        assert await stream.read() == b"hello"
"""

FRAMEWORKS = {
    "pytest-asyncio": """
import pytest

@pytest.mark.asyncio
async def test_hosts(p2p_pair):
    await use(p2p_pair)
""",
    "pytest-asyncio, with fixtures of the user": """
import pytest, pytest_asyncio

@pytest_asyncio.fixture
async def hosts(p2p_pair):
    async with p2p_pair() as pair:
        yield pair

@pytest.mark.asyncio
async def test_hosts(hosts):
    a, b = hosts
    assert len(await a.ping(b.peer_id)) == 1
""",
    "anyio": """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_hosts(p2p_pair):
    await use(p2p_pair)
""",
    "anyio, on the virtual clock": """
import asyncio, pytest
from p2pcore.testing import VirtualLoop

@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}

@pytest.mark.anyio
async def test_hosts(p2p_pair):
    await asyncio.sleep(100_000)
    await use(p2p_pair)
""",
    "virtual": """
import asyncio
from p2pcore.testing import virtual

@virtual
async def test_hosts(p2p_pair):
    await asyncio.sleep(100_000)
    await use(p2p_pair)
""",
}


AUTO = {
    "pytest-asyncio": """
async def test_hosts(p2p_pair):
    await use(p2p_pair)
"""
}


def pytest_of(project: Path, *args: str) -> str:
    """What pytest prints for `project`, whose outcome is its last line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ".", *args],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds(HANG_S),
        check=False,
    )
    return done.stdout + done.stderr


def write(project: Path, frameworks: dict[str, str]) -> None:
    for number, text in enumerate(frameworks.values()):
        (project / f"test_{number}.py").write_text(USE + text)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_the_fixtures_work_under_every_framework(mode: str, tmp_path: Path) -> None:
    chosen = FRAMEWORKS if mode == "strict" else AUTO
    write(tmp_path, chosen)
    options = ["-o", f"asyncio_mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function"]
    out = pytest_of(tmp_path, "-W", "error", "-W", EDITABLE, *options)
    assert re.search(rf"\b{len(chosen)} passed in", out), out


def test_a_failure_shows_its_seed_which_can_be_given_and_an_open_host_is_an_error(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_one(p2p_network):\n    assert p2p_network.seed < 0\n"
        "def test_two(p2p_network):\n    assert p2p_network.seed < 0\n"
        "def test_open(p2p_network):\n    p2p_network.host()\n"
    )
    out = pytest_of(tmp_path)
    seeds = [zlib.crc32(f"test_it.py::test_{name}".encode()) for name in ("one", "two")]
    assert {str(seed) for seed in seeds} < set(re.findall(r"the network's seed: --p2p-seed=(\d+)", out))
    assert "1 host(s) were not closed: use `async with network.host() as host`" in out
    assert re.search(r"2 failed, 1 passed, .*1 error", out)
    out = pytest_of(tmp_path, "--p2p-seed", "5", "-k", "not open")
    assert out.count("the network's seed: --p2p-seed=5") == 2


def test_who_does_not_use_it_loads_nothing_of_p2pcore_but_two_small_modules(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n\ndef test_it():\n"
        "    ours = {name for name in sys.modules if name.startswith('p2pcore')}\n"
        "    assert ours == {'p2pcore', 'p2pcore.values', 'p2pcore.values.version',\n"
        "                    'p2pcore.testing', 'p2pcore.testing.plugin'}\n"
        "    assert not {'uvloop', 'cryptography', 'nacl', 'OpenSSL'} & set(sys.modules)\n"
    )
    plugins = ["-p", "no:anyio", "-p", "no:asyncio", "-p", "no:hypothesispytest"]
    assert "1 passed" in pytest_of(tmp_path, *plugins)


def test_it_stays_out_where_it_is_not_wanted(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(p2p_pair): ...\n")
    assert "fixture 'p2p_pair' not found" in pytest_of(tmp_path, "-p", "no:p2pcore")
