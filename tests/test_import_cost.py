"""What an import loads, and what only comes when it is used: names of modules, never milliseconds.

Comes in: programs, each in a fresh interpreter. Goes out: the modules that they have loaded.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness import seconds
from p2pcore.late import Late

LIMIT_S = 30
SHOW = "\nimport sys; print(*sys.modules)"

RARE_IN_PYTHON = {"ctypes", "email", "importlib.metadata", "json", "pathlib", "pickle", "platform", "secrets"}
RARE_IN_PYTHON |= {"shutil", "sqlite3", "tempfile", "urllib.parse", "zipfile"}
RARE_IN_PACKAGES = {"OpenSSL", "click", "cryptography.x509", "google", "h11", "multiaddr", "rich", "uvloop"}
RARE_IN_P2PCORE = {
    *("dialing.addr_store", "dialing.book_file", "manet.getifaddrs", "metrics", "muxers.mplex", "pb"),
    *("protocols.echo", "protocols.identify", "protocols.perf", "relay.client", "relay.messages"),
    *("relay.service", "security", "swarm.events", "transports", "workers"),
}
NOT_ON_TCP = {f"p2pcore.transports.websocket.{name}" for name in ("http", "proxy", "tls", "upgrade")}
OF_A_NODE = {  # what each Host needs, but not the program that only imports the class
    *("pickle", "urllib.parse", "google", "p2pcore.metrics", "p2pcore.pb", "p2pcore.protocols.identify"),
    *("p2pcore.security", "p2pcore.transports"),
}
RARE = RARE_IN_PYTHON | RARE_IN_PACKAGES | {f"p2pcore.{name}" for name in RARE_IN_P2PCORE}


def loaded(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", program + SHOW],
        capture_output=True,
        text=True,
        timeout=seconds(LIMIT_S),
        check=True,
    )
    return set(done.stdout.split())


def loaded_beyond_asyncio(program: str) -> set[str]:
    """asyncio, and so each release of Python, loads what it wants."""
    return loaded(program) - loaded("import asyncio, logging, ipaddress, dataclasses")


def test_to_import_the_host_loads_nothing_that_few_nodes_use() -> None:
    assert loaded_beyond_asyncio("from p2pcore import Host") & RARE == set()


def test_a_node_loads_nothing_that_few_nodes_use() -> None:
    node = """
import asyncio
from p2pcore import Host
async def main():
    async with Host():
        pass
asyncio.run(main())
"""
    rare = RARE - OF_A_NODE | NOT_ON_TCP
    of_protobuf = loaded("from google.protobuf.internal import builder")  # older versions want ctypes
    assert loaded_beyond_asyncio(node) & rare - of_protobuf == set()


NODES = """
import asyncio, sys
from p2pcore import Host
async def main():
    async with Host(listen=[{addr!r}], security=[{security!r}]) as host:
        async with Host(listen=[{addr!r}], security=[{security!r}]) as other:
            before = set(sys.modules)
            await other.ping(host.addrs[0])
            await other.identify(host.addrs[0])
            await asyncio.gather(*(host.identify(conn) for conn in host.swarm.conns()))
            print(*set(sys.modules) - before)
asyncio.run(main())
sys.exit()
"""


@pytest.mark.parametrize("security", ["noise", "tls"])
@pytest.mark.parametrize("addr", ["/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"])
def test_the_first_connection_waits_for_no_import(addr: str, security: str) -> None:
    assert loaded(NODES.format(addr=addr, security=security)) == set()


def test_listen_without_workers_does_not_load_them() -> None:
    rare = {"p2pcore.workers", "multiprocessing", "sqlite3", "tomllib", "rich", "p2pcore.metrics.server"}
    assert loaded("from p2pcore.cli import listen_command") & rare == set()


def test_late_imports_a_module_when_a_name_is_used() -> None:
    program = """
import sys
from p2pcore.late import Late
late = Late("colorsys")
assert repr(late) == "Late('colorsys')" and "colorsys" not in sys.modules
assert late.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0) and "colorsys" in sys.modules
"""
    assert "colorsys" in loaded(program)


def test_late_says_which_name_is_missing() -> None:
    with pytest.raises(AttributeError, match="module 'colorsys' has no attribute 'nothing'"):
        _ = Late("colorsys").nothing
