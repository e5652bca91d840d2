"""The command line: `PYTHONPATH=bench python -m attacks [ROW ...]`; see bench/README.md.

Comes in: names of rows, durations, contenders. Goes out: a line for each row and contender, and with --write
results/attacks.json and docs/attacks.md. Exit status 1 if p2pcore misses a bound.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attacks import place
from attacks.measure import run_row
from attacks.rows import ROWS, Row
from peers import ROOT, Peer, PeerFailure, choose_cores, load_builder
from results import commit, machine

NODE = Path(__file__).resolve().parent / "node.py"
RESULTS = ROOT / "bench" / "results" / "attacks.json"
OURS = "p2pcore"


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="attacks", description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help="names or patterns of rows (silent-*); by default all")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument(
        "--rest", type=float, default=5.0, metavar="S", help="seconds at rest before an attack"
    )
    parser.add_argument("--attack", type=float, default=10.0, metavar="S", help="seconds of an attack")
    parser.add_argument("--with-go", action="store_true", help="each row against go-libp2p too")
    parser.add_argument("--node", metavar="COMMAND", help="another node in place of this p2pcore's")
    parser.add_argument("--loopback", action="store_true", help="use 127.0.0.0/8 and no network namespace")
    parser.add_argument("--json", action="store_true", help="print each row's figures as JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    return parser.parse_args(arguments)


def _chosen(patterns: Sequence[str]) -> Iterator[Row]:
    for row in ROWS:
        if not patterns or any(fnmatch.fnmatch(row.name, pattern) for pattern in patterns):
            yield row


def _contenders(options: argparse.Namespace) -> list[Peer]:
    ours = tuple(shlex.split(options.node)) if options.node else (sys.executable, str(NODE))
    found = [Peer(OURS, ours)]
    if options.with_go:
        found.append(Peer("go", tuple(load_builder().build("go").command)))
    return found


def _options(row: Row, peer: Peer) -> tuple[str, ...] | None:
    if peer.name == OURS:
        return row.node
    return None if row.go is None else ("-managed", *row.go)


def _measured(row: Row, peer: Peer, options: argparse.Namespace) -> dict[str, Any] | None:
    more = _options(row, peer)
    if more is None:
        return None
    try:
        found = run_row(row, peer, more, choose_cores(), options.rest, options.attack)
    except PeerFailure as failure:
        found = {"row": row.name, "figures": {}, "failure": str(failure)}
    found["node"] = peer.name
    found["missed"] = [str(bound) for bound in row.bounds if not bound.holds(found["figures"])]
    return found


SHOWN = ("p50", "p99", "rest p99", "done", "failed")
MEMORY = ("memory start", "memory peak", "memory after")


def _show(row: Row, found: dict[str, Any]) -> None:
    figures = found["figures"]
    names = [f"{kind} {name}" for kind in ("held", "fresh", "slow") for name in SHOWN]
    texts = [f"{name} {figures[name]:g}" for name in names if name in figures]
    memory = [f"{figures[name]:.0f}" for name in MEMORY if name in figures]
    print(f"{row.name} [{found['node']}]: {'; '.join(texts)}; MB {' '.join(memory)}")
    for bound in row.bounds:
        print(f"    {bound}: {figures.get(bound.figure)} {'ok' if bound.holds(figures) else 'MISSED'}")
    for name in ("failure", "seen"):
        if name in found:
            print(f"    {name}: {found[name]}")
    for name in ("held", "fresh", "slow"):
        if failures := found.get("attack", {}).get(name, {}).get("failures"):
            print(f"    {name}: {failures}")
    sys.stdout.flush()


def main() -> int:
    """The exit status."""
    options = _parsed(sys.argv[1:])
    if options.list:
        for row in ROWS:
            print(f"{row.name:<16} {row.title}")
        return 0
    place.enter(sys.argv[1:], options.loopback)
    all_found = []
    for row in _chosen(options.rows):
        for peer in _contenders(options):
            if (found := _measured(row, peer, options)) is None:
                continue
            all_found.append(found)
            print(json.dumps(found)) if options.json else _show(row, found)
    if options.write:
        whole = {
            "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "commit": commit(),
            "machine": machine(choose_cores()),
            "rows": all_found,
        }
        RESULTS.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    return int(any(found["missed"] for found in all_found if found["node"] == OURS))


if __name__ == "__main__":
    sys.exit(main())
