"""The node under attack: a Host with default options.

Comes in: `listen` or `relay` with options, orders on standard input. Goes out: what interop/README.md
says about a listener.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "interop" / "python"))

from p2pcore import ConnOptions, Host, Limits, RelayOptions, TcpOptions, run
from serve import Server, obey


def _host(options: argparse.Namespace) -> Host:
    more: dict[str, Any] = {}
    if options.bare:
        more |= {"ping": False, "identify": False}
    if options.op == "relay":
        more["relay_service"] = RelayOptions()
    if options.dedup:
        more["conns"] = ConnOptions(duplicates="dedup")
    if options.free:
        from p2pcore.resources.options import UNLIMITED

        more["limits"] = UNLIMITED
    elif options.memory:
        more["limits"] = Limits(memory=options.memory)
    if options.share:
        more["tcp"] = TcpOptions(share_port=True)
    return Host(listen=options.addr.split(","), echo=True, **more)


async def _main(options: argparse.Namespace) -> None:
    async with _host(options) as host:
        await obey(Server(host))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("op", choices=["listen", "relay"])
    parser.add_argument("-addr", required=True)
    parser.add_argument("-memory", type=int, help="the budget of Limits, bytes")
    for name in ("-bare", "-dedup", "-free", "-share"):
        parser.add_argument(name, action="store_true")
    run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
