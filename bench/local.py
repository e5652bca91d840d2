"""Figures that need no peer, each measured in a fresh interpreter.

Comes in: `import python` or `multiaddr python|multiaddr`. Goes out: one line of JSON.
Imports nothing before the clock runs that the measured import would load.
"""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module

LOOPS = 4_000
ADDRESSES = (
    "/ip4/127.0.0.1/tcp/4001",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
    "/ip6/2604:a880:1:20::203:d001/udp/4001/quic",
    "/ip4/198.51.100.4/tcp/443/ws",
    "/ip4/192.0.2.7/udp/9090/quic/p2p/QmSoLPppuBtQSGwKDZT2M73ULpjvfd3aZ6ha4oFGL1KrGM",
)


def _timed(statement: str) -> float:
    began = time.perf_counter()
    exec(statement, {})
    return (time.perf_counter() - began) * 1e3


def _descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()


def measure_import() -> dict[str, float]:
    """Milliseconds to import the package, then what a node needs; and the descriptors it opened."""
    sockets: list[str] = []
    before = _descriptors()
    sys.addaudithook(lambda event, _: sockets.append(event) if event.startswith("socket.") else None)
    package = _timed("import p2pcore")
    opened = len(sockets) + len(_descriptors() - before)
    host = _timed("from p2pcore import Host")
    return {"ms": package, "host_ms": package + host, "opened": opened}


def measure_multiaddr(name: str) -> dict[str, float]:
    """Microseconds from text to bytes to text, mean over ADDRESSES."""
    make = import_module("p2pcore" if name == "python" else "multiaddr").Multiaddr
    for text in ADDRESSES:
        if str(make(make(text).to_bytes())) != text:
            raise ValueError(f"{text} comes back as something else")
    began = time.perf_counter()
    for _ in range(LOOPS):
        for text in ADDRESSES:
            str(make(make(text).to_bytes()))
    return {"us": (time.perf_counter() - began) / (LOOPS * len(ADDRESSES)) * 1e6}


def main() -> None:
    """The command line."""
    figures = measure_import() if sys.argv[1] == "import" else measure_multiaddr(sys.argv[2])
    import json

    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
