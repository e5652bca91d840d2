"""The command line: `PYTHONPATH=bench python -m attacks [ROW ...]`; see bench/README.md.

Comes in: names of rows, durations, contenders. Goes out: a line for each row and contender, and with --write
results/attacks.json and docs/attacks.md. Exit status 1 if p2pcore misses a bound.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from attacks import place
from attacks.measure import Durations, run_row
from attacks.render import page
from attacks.rows import ROWS, Bound, Row
from attacks.twins import BOUNDS, TWINS, run_twin
from peers import ROOT, Peer, PeerFailure, choose_cores, load_builder
from results import commit, machine, without_paths

NODE = Path(__file__).resolve().parent / "node.py"
RESULTS = ROOT / "bench" / "results" / "attacks.json"
PAGE = ROOT / "docs" / "attacks.md"
OURS = "p2pcore"

Found = dict[str, Any]


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="attacks", description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help="names or patterns of rows (silent-*); by default all")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument(
        "--rest", type=float, default=5.0, metavar="S", help="seconds at rest before an attack"
    )
    parser.add_argument("--attack", type=float, default=10.0, metavar="S", help="seconds of an attack")
    parser.add_argument("--settle", type=float, default=5.0, metavar="S", help="seconds after an attack")
    parser.add_argument(
        "--node", choices=[OURS, "go"], action="append", help="only this one; may be repeated"
    )
    parser.add_argument("--loopback", action="store_true", help="use 127.0.0.0/8 and no network namespace")
    parser.add_argument("--without-twins", action="store_true", help="rows only, no honest twins")
    parser.add_argument("--render", action="store_true", help=f"write {PAGE.relative_to(ROOT)} again")
    parser.add_argument("--json", action="store_true", help="print each row's figures as JSON")
    parser.add_argument("--write", action="store_true", help="write the results and the page")
    return parser.parse_args(arguments)


def _chosen(patterns: Sequence[str]) -> Iterator[Row]:
    for row in ROWS:
        if not patterns or any(fnmatch.fnmatch(row.name, pattern) for pattern in patterns):
            yield row


def _contenders(options: argparse.Namespace) -> list[Peer]:
    found = [Peer(OURS, (sys.executable, str(NODE)))]
    if "go" in (options.node or ()):
        found.append(Peer("go", tuple(load_builder().build("go").command)))
    return [peer for peer in found if peer.name in (options.node or (OURS,))]


def _options(row: Row, peer: Peer) -> tuple[str, ...] | None:
    if peer.name == OURS:
        return row.node
    return None if row.go is None else ("-managed", *row.go)


def _measured(row: Row, peer: Peer, options: argparse.Namespace) -> Found | None:
    more = _options(row, peer)
    if more is None:
        return None
    durations = Durations(options.rest, options.attack, options.settle)
    try:
        found = run_row(row, peer, more, choose_cores(), durations)
    except PeerFailure as failure:
        found = {"row": row.name, "figures": {}, "failure": without_paths(str(failure))}
    found |= {"node": peer.name, **_when()}
    found["missed"] = _missed(row.bounds, found)
    return found


def _when() -> dict[str, str]:
    return {"when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "commit": commit()}


def _missed(bounds: Sequence[Bound], found: Found) -> list[str]:
    return [str(bound) for bound in bounds if not bound.holds(found["figures"])]


SHOWN = ("p50", "p99", "rest p99", "done", "failed")
MEMORY = ("memory start", "memory peak", "memory after")


def _show(bounds: Sequence[Bound], found: Found) -> None:
    figures = found["figures"]
    names = [f"{kind} {name}" for kind in ("held", "fresh", "slow") for name in SHOWN]
    texts = [f"{name} {figures[name]:g}" for name in names if name in figures]
    memory = [f"{figures[name]:.0f}" for name in MEMORY if name in figures]
    print(f"{found['row']} [{found['node']}]: {'; '.join(texts)}; MB {' '.join(memory)}")
    for bound in bounds:
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
        for name, title in [(row.name, row.title) for row in ROWS] + [
            (f"twin-{twin.name}", twin.title) for twin in TWINS
        ]:
            print(f"{name:<16} {title}")
        return 0
    if options.render:
        PAGE.write_text(page(json.loads(RESULTS.read_text())))
        return 0
    _contenders(options)  # builds go-libp2p, if need be: a network namespace reaches no registry
    place.enter(sys.argv[1:], options.loopback)
    status = 0
    for found in chain(_rows(options), _twins(options)):
        if options.write:
            _write(found)
        if found["node"] == OURS and found["missed"]:
            status = 1
    return status


def _rows(options: argparse.Namespace) -> Iterator[Found]:
    for row in _chosen(options.rows):
        for peer in _contenders(options):
            if (found := _measured(row, peer, options)) is not None:
                print(json.dumps(found)) if options.json else _show(row.bounds, found)
                yield found


def _twins(options: argparse.Namespace) -> Iterator[Found]:
    if options.without_twins or OURS not in (options.node or (OURS,)):
        return
    peer = Peer(OURS, (sys.executable, str(NODE)))
    for twin in TWINS:
        name = f"twin-{twin.name}"
        if options.rows and not any(fnmatch.fnmatch(name, pattern) for pattern in options.rows):
            continue
        try:
            found = run_twin(twin, peer, choose_cores(), with_free=True)
        except PeerFailure as failure:
            found = {"row": name, "figures": {}, "failure": without_paths(str(failure))}
        found |= {"node": OURS, "missed": _missed(BOUNDS, found), **_when()}
        print(json.dumps(found)) if options.json else _show(BOUNDS, found)
        yield found


def _write(found: Found) -> None:
    """Puts a row in the place of its older self, so a run need not have all rows."""
    before = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = {(each["row"], each["node"]): each for each in [*before, found]}
    whole = {"machine": machine(choose_cores()), "rows": [rows[key] for key in sorted(rows)]}
    RESULTS.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(whole))


if __name__ == "__main__":
    sys.exit(main())
