"""The admin socket: who may ask, what it answers, and what it does with bad requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

import worker_hosts
from harness import eventually, looped, settle
from hosts import BARE, pair
from p2pcore import ConnectionClosed, Host, RemoteProtocolError, Supervisor, limits
from p2pcore.admin import AdminClient, AdminServer, describe
from p2pcore.admin.status import total
from p2pcore.manet.unix_file import file_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.sock"


async def raw(path: Path, request: bytes) -> dict[str, Any]:
    """What the node answers to `request`; {}: it hangs up."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    line = await reader.readline()
    writer.close()
    answer = json.loads(line or b"{}")
    assert isinstance(answer, dict)
    return answer


@looped
async def test_the_status_of_a_host(path: Path) -> None:
    async with pair(server={"echo": True}) as p, AdminServer(p.server, path):
        stream = await p.conn.new_stream("/echo/1.0.0")
        await stream.write(b"x")
        await stream.read_exactly(1)
        client = await AdminClient.connect(path)
        status = await client.status()
        assert status["peer_id"] == str(p.server.peer_id)
        assert status["addrs"] == [str(addr) for addr in p.server.addrs_with_peer]
        assert (status["kind"], status["state"], status["pid"]) == ("node", "serving", os.getpid())
        assert (status["conns"], status["conns_inbound"], status["streams"], status["handlers"]) == (
            1,
            1,
            1,
            1,
        )
        assert status["counters"]["connections opened"] == status["counters"]["streams opened"] == 1
        assert status["counters"]["bytes in"] > 0 < status["counters"]["bytes out"]
        assert {"limit", "used", "peak", "maximum", "refused"} == set(status["limits"][0])
        assert (await client.status())["uptime_s"] > status["uptime_s"]
        client.close()
        p.server.swarm.is_draining = True
        assert describe(p.server)["state"] == "draining"


@looped
async def test_only_the_owner_may_open_the_socket_and_it_is_removed(path: Path) -> None:
    async with Host(**BARE) as host:
        async with AdminServer(host, path) as server:
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            with pytest.raises(OSError, match="somebody listens there"):
                await AdminServer(host, path).start()
        assert not file_of(str(path))
        await server.close()


@looped
async def test_a_file_that_a_dead_node_has_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert file_of(str(path))
    async with Host(**BARE) as host, AdminServer(host, path):
        assert (await raw(path, b'{"do": "status"}\n'))["kind"] == "node"


@pytest.mark.parametrize(
    "request_line",
    [b"status\n", b"[]\n", b'"status"\n', b'{"do": "restart"}\n', b"{}\n", b"[" * 4000 + b"\n", b"\xff\n"],
)
@looped
async def test_a_bad_request_is_answered_with_an_error(path: Path, request_line: bytes) -> None:
    async with Host(**BARE) as host, AdminServer(host, path):
        assert "error" in await raw(path, request_line)


@looped
async def test_a_request_without_an_end_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Host(**BARE) as host, AdminServer(host, path):
        assert await raw(path, b"x" * (4 * limits.MAX_ADMIN_REQUEST_BYTES)) == {}
        monkeypatch.setattr(limits, "ADMIN_IDLE_S", 0.05)
        assert await raw(path, b'{"do"') == {}


@looped
async def test_there_are_only_so_many_clients_at_once(path: Path) -> None:
    async with Host(**BARE) as host, AdminServer(host, path) as server:
        clients = [await AdminClient.connect(path) for _ in range(limits.MAX_ADMIN_CLIENTS)]
        for client in clients:
            await client.status()
        with pytest.raises(RemoteProtocolError, match="16 clients"):
            await (await AdminClient.connect(path)).status()
        clients.pop().close()
        await eventually(lambda: len(server._clients) < limits.MAX_ADMIN_CLIENTS)
        await (await AdminClient.connect(path)).status()


@looped
async def test_the_end_of_a_node_ends_its_conversations(path: Path) -> None:
    async with Host(**BARE) as host:
        async with AdminServer(host, path):
            client = await AdminClient.connect(path)
            await client.status()
        with pytest.raises(ConnectionClosed):
            await client.status()
        with pytest.raises(OSError, match="No such file"):
            await AdminClient.connect(path)


@pytest.mark.parametrize("turns", range(5))
@looped
async def test_a_client_that_comes_while_it_closes_is_let_go(path: Path, turns: int) -> None:
    async with Host(**BARE) as host:
        server = AdminServer(host, path)
        await server.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.setblocking(False)
            await settle(turns)
            await server.close()
            with contextlib.suppress(ConnectionResetError):
                async with asyncio.timeout(limits.ADMIN_IDLE_S / 4):  # else it is let go after that
                    assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


@looped
async def test_a_status_that_does_not_come_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        async def describe(self) -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(limits, "ADMIN_ANSWER_S", 0.05)
    async with AdminServer(Stuck(), path):
        assert "no status" in (await raw(path, b'{"do": "status"}\n'))["error"]


@looped
async def test_a_supervisor_tells_the_sums_of_its_workers(path: Path) -> None:
    async with (
        Supervisor(worker_hosts.make, workers=2) as supervisor,
        AdminServer(supervisor, path),
        Host(listen=(), **BARE) as dialer,
    ):
        for _ in range(6):
            await dialer.swarm.dial_addr(supervisor.addrs_with_peer[0])
        client = await AdminClient.connect(path)
        status = await client.status()
        while status["conns"] < 6:
            status = await client.status()
        workers = status["workers"]
        assert status["kind"] == "supervisor"
        assert [worker["index"] for worker in workers] == [0, 1]
        assert {worker["pid"] for worker in workers} == set(supervisor.pids)
        assert sum(worker["conns"] for worker in workers) == 6
        assert status["counters"]["connections opened"] == 6
        client.close()


def test_sums_take_the_highest_number_of_a_limit_for_each_peer() -> None:
    def worker(used: int | None) -> dict[str, Any]:
        use = {"used": used, "peak": 5, "maximum": 10, "refused": 1}
        return {
            "conns": 1,
            "limits": [{"limit": name, **use} for name in ("max_conns", "max_conns_per_peer")],
        }

    both = {use["limit"]: use for use in total([worker(2), worker(3), {}])["limits"]}
    assert both["max_conns"] == {"limit": "max_conns", "used": 5, "peak": 10, "maximum": 20, "refused": 2}
    assert both["max_conns_per_peer"] | {"limit": ""} == {
        "limit": "", "used": 3, "peak": 5, "maximum": 10, "refused": 2,
    }  # fmt: skip
    assert total([worker(None)])["limits"][0]["used"] is None


@looped
async def test_a_host_that_was_closed_does_not_serve(path: Path) -> None:
    async with Host(**BARE) as host:
        assert describe(host)["state"] == "serving"
    assert describe(host)["state"] == "draining"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"[" * 50_000, "not JSON"),
        (b"[]", "not an object"),
        (b'{"kind": "node"}', "the status has no 'peer_id': is the node of another version?"),
    ],
)
@looped
async def test_what_is_no_status_is_a_typed_error(path: Path, answer: bytes, why: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer + b"\n")
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        client = await AdminClient.connect(path)
        with pytest.raises(RemoteProtocolError, match=re.escape(why)):
            await client.status()
        client.close()
