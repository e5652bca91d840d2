#!/usr/bin/env python3
"""Compares p2pcore with other implementations, on this machine, in one run.

Comes in: peers of interop/README.md, the number of rounds. Goes out: results/sidebyside.json, and from it
docs/benchmarks.md with its plots; with --only, a table on the terminal and nothing else. Exit status 1 if a
measurement of p2pcore failed. A missed target is shown in its row and is no error.
"""

from __future__ import annotations

import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import click
from rich.console import Console

import limit
import plots
import render
from peers import ROOT, Cores, Peer, choose_cores, load_builder
from results import Results, commit, machine, versions, without_paths
from rows import LIMIT, OURS
from runner import run
from works import WORKS, Rig, Work

RESULTS = ROOT / "bench" / "results" / "sidebyside.json"
DOCS = ROOT / "docs"
LOG_WIDTH = 150
"""Width of the table if there is no terminal."""
FULL_ROUNDS = 5
"""From this number of rounds on, peers that take minutes to build always take part."""
SHARES = {"js": 0.125}
"""js-libp2p does an eighth of such work; all of it would take most of the time of a run."""


def build_peers(
    wanted: tuple[str, ...], extra: tuple[str, ...], with_slow: bool, console: Console
) -> dict[str, Peer]:
    """The peers by name: peers of interop/ that can be built, and peers given by hand."""
    builder = load_builder()
    names = [*builder.BUILDERS, *(builder.BENCH_BUILDERS if with_slow else ()), LIMIT]
    unknown = set(wanted) - {*builder.BUILDERS, *builder.BENCH_BUILDERS, LIMIT}
    if unknown:
        raise click.BadParameter(f"no such peer: {', '.join(sorted(unknown))}", param_hint="--with")
    found: dict[str, Peer] = {}
    for name in sorted(wanted or names, key=lambda name: (name != OURS, name)):
        with console.status(f"building {name}"):
            built, reason = _build(builder, name)
        if built:
            found[name] = Peer(name, built)
        else:
            console.print(f"without {name}: {without_paths(reason)}", markup=False)
    for text in extra:
        name, equals, command = text.partition("=")
        if not name.isidentifier() or not equals or not command.strip():
            raise click.BadParameter(f"{text!r} is not NAME=COMMAND", param_hint="--peer")
        found[name] = Peer(name, tuple(shlex.split(command)))
    return found


def _build(builder: ModuleType, name: str) -> tuple[tuple[str, ...], str]:
    """The command of a peer, or why there is none. If it does not build, the others still take part."""
    if name == LIMIT:
        return limit.build()
    try:
        built = builder.build(name)
    except builder.BuildError as error:
        return (), str(error)
    return tuple(built.command), built.reason


def chosen_works(only: tuple[str, ...]) -> tuple[Work, ...]:
    """All works, or those named."""
    unknown = set(only) - {work.name for work in WORKS}
    if unknown:
        names = ", ".join(work.name for work in WORKS)
        raise click.BadParameter(
            f"no such work: {', '.join(sorted(unknown))}; there are {names}", param_hint="--only"
        )
    return tuple(work for work in WORKS if not only or work.name in only)


def new_results(rounds: int, cores: Cores) -> Results:
    """Results with nothing measured yet."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Results(when, rounds, commit(), machine(cores), versions())


def write_page(results: Results, docs: Path) -> None:
    """docs/benchmarks.md and its plots."""
    plots.write(results, docs)
    render.write(results, docs)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Samples of each figure."
)
@click.option(
    "--peer", "extra", multiple=True, metavar="NAME=COMMAND", help="Another peer, or another command."
)
@click.option(
    "--with",
    "wanted",
    multiple=True,
    metavar="NAME",
    help="Only these peers of interop/ (python, go, js, rust), and limit.",
)
@click.option(
    "--only", multiple=True, metavar="WORK", help="Only these works; prints a table, writes no files."
)
@click.option(
    "--render", "only_render", is_flag=True, help="Renders the existing results and measures nothing."
)
@click.option("--out", default=RESULTS, type=click.Path(path_type=Path), help="Where the results go.")
@click.option("--docs", default=DOCS, type=click.Path(path_type=Path), help="Where benchmarks.md goes.")
def main(
    rounds: int,
    extra: tuple[str, ...],
    wanted: tuple[str, ...],
    only: tuple[str, ...],
    only_render: bool,
    out: Path,
    docs: Path,
) -> None:
    """Measures p2pcore beside other implementations and renders docs/benchmarks.md."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    if only_render:
        write_page(Results.load(out), docs)
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users have byte code: else an import also compiles
    works = chosen_works(only)
    cores = choose_cores()
    results = new_results(rounds, cores)
    peers = build_peers(wanted, extra, rounds >= FULL_ROUNDS, console)
    run(works, Rig(peers, cores, SHARES), results, console)
    console.print(render.table(results))
    if not only:
        results.save(out)
        write_page(results, docs)
        console.print("written: the results and docs/benchmarks.md")
    sys.exit(int(any(each["contender"] == OURS for each in results.failures)))


if __name__ == "__main__":
    main()
