"""One message to very many connections: CPU of the server a message, and when the last one has it.

Comes in: how many connections and messages. Goes out: a table, or with --json one JSON object. Server and
receivers are two processes, each on a core of its own; nothing leaves the loopback. Beside p2pcore: the
`websockets` package, which encrypts nothing, and bare sockets, the limit of what one `send` a connection can
reach.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
KINDS = ("bare", "websockets", "p2pcore")
MESSAGE_BYTES = 100
PATIENCE_S = 120.0


class End:
    """A process of broadcast_ends.py: one command a line, one JSON object a line."""

    def __init__(self, core: int, *args: str) -> None:
        cores = sorted(os.sched_getaffinity(0))
        core = cores[core % len(cores)]
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "broadcast_ends.py"), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )

    async def ask(self, command: str = "") -> dict[str, Any]:
        """Sends `command`, if there is one, and reads an answer."""
        if command:
            pipe(self.process.stdin).write(command + "\n")
            pipe(self.process.stdin).flush()
        line = await asyncio.wait_for(asyncio.to_thread(pipe(self.process.stdout).readline), PATIENCE_S)
        if not line:
            raise RuntimeError(f"{self.process.args} has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def pipe(file: IO[str] | None) -> IO[str]:
    assert file is not None
    return file


async def measure(kind: str, conns: int, messages: int) -> dict[str, float]:
    """Opens `conns` connections, and sends each `messages` messages."""
    server = End(0, "serve", kind)
    addr = (await server.ask())["addr"]
    receivers = End(1, "receive", kind, addr, str(conns))
    try:
        await receivers.ask()
        sent = await server.ask(f"{conns} {messages}")
        got = await receivers.ask(str(messages))
    finally:
        server.end()
        receivers.end()
    if got["received"] != conns * messages:
        raise RuntimeError(f"{kind}: {got['received']} of {conns * messages} messages have come")
    del got["received"]
    return {"cpu_us": sent["cpu_s"] * 1e6 / (conns * messages), **got}


async def main() -> None:
    options = parsed()
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in options.kind}
    for _ in range(options.rounds):
        for kind in options.kind:
            found[kind].append(await measure(kind, options.conns, options.messages))
    medians = {
        kind: {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        for kind, rounds in found.items()
    }
    if options.json:
        print(json.dumps({"conns": options.conns, "medians": medians, "rounds": found}))
        return
    print(f"{MESSAGE_BYTES} bytes to {options.conns} connections, medians of {options.rounds} rounds")
    print(f"{'':12}{'CPU us a message':>18}{'p50 ms':>10}{'p99 ms':>10}{'last ms':>10}")
    for kind, row in medians.items():
        print(
            f"{kind:12}{row['cpu_us']:18.2f}{row['p50_ms']:10.1f}{row['p99_ms']:10.1f}{row['last_ms']:10.1f}"
        )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--conns", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.kind = options.kind or list(KINDS)
    return options


if __name__ == "__main__":
    asyncio.run(main())
