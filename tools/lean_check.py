"""Looks at an environment after `pip install p2pcore`: what is there works, what is missing is named.

Comes in: the interpreter that runs it, with p2pcore and nothing else. Goes out: lines about what it saw; an
AssertionError for what is not so. Needs no pytest, which would not be a lean environment.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from p2pcore import DialError, Host, Multiaddr, run
from p2pcore.testing import connected_pair

MAX_PACKAGES = 12
"""With p2pcore itself, pip, and what pip brings (issue 12)."""
LEFT_OUT = ("click", "rich", "dns", "multiaddr", "pytest", "trio")


def packages() -> None:
    names = sorted({dist.metadata["Name"] for dist in importlib.metadata.distributions()})
    print(f"{len(names)} packages: {', '.join(names)}")
    assert len(names) <= MAX_PACKAGES
    assert [name for name in LEFT_OUT if find_spec(name) is not None] == []


def files() -> None:
    """The stubs, the marker of types and the bill of materials are in the wheel."""
    found = {str(path) for path in importlib.metadata.files("p2pcore") or ()}
    assert "p2pcore/py.typed" in found
    assert "p2pcore/_fast/mux/stream.pyi" in found
    assert [path for path in found if path.endswith((".pyx", ".c", ".proto"))] == []
    assert any(re.fullmatch(r"p2pcore-[^/]*\.dist-info/sboms/p2pcore\.cdx\.json", path) for path in found)
    print(f"{len(found)} files")


def command() -> None:
    """One line that names the extra."""
    script = Path(sys.executable).with_name("p2pcore")
    for words in ([script, "--help"], [script, "listen"], [sys.executable, "-m", "p2pcore.cli"]):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert done.stderr == 'p2pcore: the command needs click: pip install "p2pcore[cli]"\n', done.stderr
    print(done.stderr, end="")


def multiaddr() -> None:
    told = ""
    try:
        Multiaddr("/tcp/1").to_multiaddr()
    except ImportError as error:
        told = str(error)
    print(told)
    assert 'pip install "p2pcore[multiaddr]"' in told


async def hosts() -> None:
    """Hosts talk, and a name that needs TXT records says what it needs."""
    async with connected_pair() as (a, b), Host() as on_tcp:
        assert len(await a.ping(b.peer_id)) == 1
        assert len(await a.ping(on_tcp.addrs_with_peer[0])) == 1
        told = ""
        try:
            await b.connect(Multiaddr("/dnsaddr/invalid").with_p2p(on_tcp.peer_id))
        except DialError as error:
            told = str(error)
        print(told)
        assert 'pip install "p2pcore[dns]"' in told


def import_times() -> None:
    """For people: a machine that does other work takes longer."""
    for statement in ("import p2pcore", "from p2pcore import Host"):
        words = [sys.executable, "-X", "importtime", "-c", statement]
        outs = [subprocess.run(words, capture_output=True, text=True, check=True).stderr for _ in range(5)]
        best = min(sum(int(line.split("|")[0].split()[-1]) for line in out.splitlines()[1:]) for out in outs)
        print(f"{statement}: {best / 1000:.0f} ms with the interpreter's own modules, the best of 5")


def main() -> None:
    packages()
    files()
    command()
    multiaddr()
    run(asyncio.wait_for(hosts(), 60))
    import_times()


if __name__ == "__main__":
    main()
