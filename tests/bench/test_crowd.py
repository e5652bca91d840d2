"""The dialer of rows about many peers, and the gates about them: strangers are new, and known when they go.

Comes in: crowd.py as a process and as a module. Goes out: claims about what a listener saw.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.harness import looped, seconds

from p2pcore import Host, IdentifyInfo, PeerId

pytestmark = pytest.mark.source
crowd = pytest.importorskip("crowd", reason="bench/ is not there")

from gates import crowds  # noqa: E402

SCRIPT = str(Path(crowd.__file__))
PATIENCE_S = 60.0


class Seen:
    """A notifiee: who came, how many at once, and what a host knew of each peer when it was gone."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.gone: list[IdentifyInfo | None] = []
        self.came: list[PeerId] = []
        self.most = 0

    def connected(self, network: object, conn: Any) -> None:
        """One more."""
        self.came.append(conn.remote_peer)
        self.most = max(self.most, self.host.swarm.num_conns)

    def disconnected(self, network: object, conn: Any) -> None:
        """One less."""
        self.gone.append(self.host.info_of(conn))

    def listen(self, network: object, addr: object) -> None:
        """Does not matter here."""

    def listen_close(self, network: object, addr: object) -> None:
        """Does not matter here."""


async def played(host: Host, *words: str, lines: tuple[str, ...] = ()) -> tuple[int, list[str], str]:
    """Runs crowd.py against `host`. Returns: its exit status, its lines, what it said of errors."""
    arguments = (SCRIPT, words[0], "-to", str(host.addrs_with_peer[0]), *words[1:])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(seconds(PATIENCE_S)):
        out, errors = await process.communicate("".join(f"{line}\n" for line in lines).encode())
    return process.returncode or 0, out.decode().splitlines(), errors.decode()


@looped
@pytest.mark.parametrize("security", ["noise", "tls"])
async def test_each_stranger_is_new_identified_and_tells_a_signed_record(security: str) -> None:
    async with Host(security=(security,), echo=True) as host:
        seen = Seen(host)
        host.notify(seen)
        status, lines, errors = await played(host, "strangers", "-sec", security, "-n", "6", "-c", "3")
    assert (status, errors) == (0, "")
    assert json.loads(lines[-1])["n"] == 6
    known = [info for info in seen.gone if info is not None and info.record_addrs]
    assert len({info.peer for info in known}) == len(seen.gone) == 6
    assert 1 < seen.most <= 3


@looped
async def test_at_a_rate_what_could_not_begin_is_left_out() -> None:
    async with Host(echo=True) as host:
        status, lines, _ = await played(host, "strangers", "-n", "20", "-c", "1", "-rate", "100000")
    assert status == 0
    assert 1 <= json.loads(lines[-1])["n"] < 20


@looped
async def test_busy_connections_say_all_messages_from_many_hosts() -> None:
    async with Host(echo=True) as host:
        seen = Seen(host)
        host.notify(seen)
        status, lines, errors = await played(host, "busy", "-n", "500", "-c", "70", lines=("go", "end"))
    assert (status, errors) == (0, "")
    assert lines[0] == "HELD 70"
    # One in ten is timed. The others, counted by their bytes, go on: on a slow machine they are ahead.
    assert 400 <= json.loads(lines[1])["n"] <= 1500
    assert len(seen.came) == seen.most == 70
    assert len(set(seen.came)) == crowd.HOSTS


@looped
async def test_a_stranger_that_is_not_served_is_an_error() -> None:
    async with Host(echo=False) as host:
        status, lines, errors = await played(host, "strangers", "-n", "1")
    assert status == 1
    assert lines == []
    assert errors.startswith("ERROR ProtocolNotSupported")


@looped
async def test_at_a_rate_a_stranger_that_fails_is_left_out() -> None:
    async with Host(echo=False) as host:
        status, lines, errors = await played(host, "strangers", "-n", "3", "-rate", "100")
    assert (status, errors) == (0, "")
    assert json.loads(lines[-1])["n"] == 0


@looped
@pytest.mark.parametrize("security", ["noise", "tls"])
async def test_a_new_peer_of_the_gates_is_new_and_known_to_the_listener(security: str) -> None:
    work = crowds.NewPeers(security, 2)
    await work.open()
    seen = Seen(work.server)
    work.server.notify(seen)
    try:
        await work.once()
        await work.once()
    finally:
        await work.close()
    assert len({info.peer for info in seen.gone if info is not None}) == 2


@looped
async def test_a_turn_of_the_busy_gate_has_a_message_on_each_connection() -> None:
    work = await crowds.Busy.start()
    try:
        await work.once()
        conns = {stream.conn.id for stream in work.streams}
        assert work.server.swarm.num_conns == len(conns) == crowds.NUM_CONNS
    finally:
        await work.close()
