"""`p2pcore top`: shows a running node live: connections, streams, rates, refusals, memory, workers.

Comes in: the admin socket of the node; the key q. Goes out: a screen that is drawn anew each second, if
standard output is a terminal; otherwise the lines of one look. However it ends, it leaves the terminal as it
was before.
"""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from p2pcore.admin import AdminClient
from p2pcore.cli.admin_options import admin_option, asking
from p2pcore.cli.node import run
from p2pcore.cli.node_shown import Change, Status, change, parts
from p2pcore.cli.output import Output, clean
from p2pcore.cli.params import SecondsType, json_option

if TYPE_CHECKING:
    from rich.text import Text

LEAST_INTERVAL_S = 0.1
"""A look costs the node about a millisecond for each thousand peers."""


@click.command()
@admin_option
@click.option(
    "-i", "--interval", type=SecondsType(), default=1.0, show_default=True, help="Seconds between two looks."
)
@json_option
def command(admin: str, interval: float, as_json: bool) -> None:
    """Show a running node live. Keys: q ends it.

    If standard output is not a terminal, it shows one look, with the rates of one interval. With --json, it
    prints one JSON object for each look, until Ctrl-C.
    """
    run(_top(admin, max(interval, LEAST_INTERVAL_S), as_json), interrupted=0)


async def _top(admin: str, interval: float, as_json: bool) -> None:
    async with asking(admin) as client:
        if as_json:
            await _print(client, interval)
        elif sys.stdout.isatty():
            await _live(client, interval)
        else:
            first = await client.status()
            await asyncio.sleep(interval)
            status = await client.status()
            Output(False).show([line for part in parts(status, change(first, status)) for line in part])


async def _print(client: AdminClient, interval: float) -> None:
    """Prints a JSON object for each look; never returns."""
    output = Output(True)
    while True:
        output.show("", **await client.status())
        await asyncio.sleep(interval)


async def _live(client: AdminClient, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    quitting = asyncio.Event()
    before = await client.status()
    rates: Change | None = None
    with (
        _keys(quitting),
        Live(_screen(before, rates), console=Console(), screen=True, auto_refresh=False) as live,
    ):
        while not await _is_set(quitting, interval):
            status = await client.status()
            rates, before = change(before, status), status
            live.update(_screen(status, rates), refresh=True)


def _screen(status: Status, rates: Change | None) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop")
    for head, *lines in parts(status, rates):
        text.append(f"{clean(head)}\n", style="bold")
        for line in lines:
            text.append(f"{clean(line)}\n")
        text.append("\n")
    text.append("q: quit", style="dim")
    return text


async def _is_set(event: asyncio.Event, timeout_s: float) -> bool:
    """Waits for `event` for so long. Returns: whether it came."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


@contextmanager
def _keys(quitting: asyncio.Event) -> Iterator[None]:
    """Sets `quitting` when q is pressed, if standard input is a terminal. Keys do not show meanwhile."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    quiet = list(before)
    quiet[3] &= ~(termios.ECHO | termios.ICANON)  # Ctrl-C still makes a signal
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        keys = os.read(descriptor, 64)
        if not keys or b"q" in keys.lower():
            quitting.set()
        if not keys:  # the terminal is gone
            loop.remove_reader(descriptor)

    termios.tcsetattr(descriptor, termios.TCSADRAIN, quiet)
    loop.add_reader(descriptor, pressed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
