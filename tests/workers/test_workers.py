"""Workers: real processes on one port, started, lost, replaced and drained."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import worker_hosts
from harness import HANG_S, ended_by, eventually, looped, run, seconds
from hosts import BARE
from nodes import make_node
from p2pcore import (
    Conn,
    ConnectionClosed,
    DialError,
    GoAway,
    Host,
    Limits,
    ListenError,
    LocalProtocolError,
    Multiaddr,
    PrivateKey,
    Reserved,
    Supervisor,
    WorkerEvent,
    WorkerFailed,
    codes,
    limits,
)
from p2pcore.manet.conn import MaConn
from p2pcore.workers.hub import Ticket
from p2pcore.workers.process import Process, pickled
from p2pcore.workers.worker import Settings
from worker_hosts import WHO

LIMIT_S = HANG_S / 2


class Node:
    """A supervisor that serves, what it told, and a host to dial with."""

    def __init__(self, supervisor: Supervisor, events: list[WorkerEvent], dialer: Host) -> None:
        self.supervisor = supervisor
        self.events = events
        self.dialer = dialer

    @property
    def addr(self) -> Multiaddr:
        return self.supervisor.addrs_with_peer[0]

    async def connect(self) -> Conn:
        return await self.dialer.swarm.dial_addr(self.addr)

    async def who(self, conn: Conn) -> int:
        stream = await conn.new_stream(WHO)
        pid = int(await stream.read())
        await stream.close()  # a stream left open would hold up a drain
        return pid

    def kinds(self, kind: str) -> list[WorkerEvent]:
        return [event for event in self.events if event.kind == kind]


@asynccontextmanager
async def serving(workers: int = 2, factory: Any = worker_hosts.make, **options: Any) -> AsyncIterator[Node]:
    events: list[WorkerEvent] = []
    async with (
        Supervisor(factory, workers=workers, on_event=events.append, **options) as supervisor,
        Host(listen=(), **BARE) as dialer,
    ):
        yield Node(supervisor, events, dialer)
    for event in events:
        assert not is_alive(event.pid)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@looped
async def test_workers_share_a_port_and_an_identity() -> None:
    key = PrivateKey.generate()
    async with serving(private_key=key) as node:
        assert node.supervisor.peer_id == key.peer_id() == node.addr.peer_id
        assert len(node.supervisor.addrs_with_peer) == 1
        pids = {await node.who(await node.connect()) for _ in range(40)}
        assert pids == set(node.supervisor.pids)
        assert len(pids) == 2
        status = await node.supervisor.status()
        assert sum(each.conns for each in status) == 40
        assert [each.index for each in status] == [0, 1]
        assert {each.pid for each in status} == pids
        assert all(each.cpu_s > 0 and each.rss_bytes > 1_000_000 for each in status)


def a_free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@looped
async def test_workers_share_files_and_ports_for_several_kinds_of_connections(tmp_path: Path) -> None:
    tcp = f"/ip4/127.0.0.1/tcp/{a_free_port()}"
    listen = [tcp, f"{tcp}/ws", f"/unix{tmp_path}/s"]
    async with serving(listen=listen, unix_mode=0o600) as node:
        addrs = node.supervisor.addrs_with_peer
        assert [str(addr.without_p2p()) for addr in addrs] == listen
        assert stat.S_IMODE((tmp_path / "s").lstat().st_mode) == 0o600
        for addr, transport in zip(addrs, ("tcp", "websocket", "unix"), strict=True):
            conns = [await node.dialer.swarm.dial_addr(addr) for _ in range(10)]
            assert {conn.state.transport for conn in conns} == {transport}
            assert {await node.who(conn) for conn in conns} <= set(node.supervisor.pids)
            for conn in conns:
                await conn.close()
        await node.supervisor.stop_worker(0)  # the other one serves everything that comes
        assert (tmp_path / "s").exists()
        for addr in addrs:
            assert await node.who(await node.dialer.swarm.dial_addr(addr)) in node.supervisor.pids
    assert os.listdir(tmp_path) == []


@looped
async def test_a_file_that_is_no_socket_is_a_failure_of_its_address(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(ListenError) as caught:
        await Supervisor(worker_hosts.make, workers=1, listen=[f"/unix{tmp_path}/s"]).start()
    assert [type(error) for _, error in caught.value.causes] == [FileExistsError]
    assert (tmp_path / "s").read_text() == "precious"


@looped
async def test_a_worker_that_died_is_replaced() -> None:
    async with serving() as node:
        victim = node.supervisor.pids[0]
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: len(node.kinds("started")) == 3, LIMIT_S)
        (died,) = node.kinds("exited")
        assert (died.pid, died.status) == (victim, -signal.SIGKILL)
        assert died.restart_s == limits.WORKER_BACKOFF_MIN_S
        assert len(node.supervisor.pids) == 2
        pids = {await node.who(await node.connect()) for _ in range(40)}
        assert pids == set(node.supervisor.pids)


@looped
async def test_what_the_kernel_queued_for_a_dead_worker_is_served_by_its_successor() -> None:
    async with serving(workers=1) as node:
        os.kill(node.supervisor.pids[0], signal.SIGKILL)
        sock = socket.create_connection(("127.0.0.1", int(node.addr.get("tcp") or 0)))
        sock.setblocking(False)
        raw = MaConn(asyncio.get_running_loop(), sock, sock.getsockname(), sock.getpeername())
        conn = await make_node(timeout=LIMIT_S).upgrader.upgrade_outbound(raw, node.supervisor.peer_id)
        await conn.session.close()


@pytest.mark.slow
def test_pauses_double_up_to_their_bound_for_a_worker_that_keeps_dying(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "WORKER_BACKOFF_MIN_S", 0.01)
    monkeypatch.setattr(limits, "WORKER_BACKOFF_MAX_S", 0.04)
    monkeypatch.setattr(limits, "WORKER_HOLD_QUEUE_S", 0.02)

    async def main() -> None:
        async with serving(workers=1, factory=worker_hosts.mortal, args=(3,)) as node:
            for count in range(1, 5):
                os.kill(node.kinds("started")[-1].pid, signal.SIGUSR1)
                await eventually(lambda: len(node.kinds("started")) > count, LIMIT_S)  # noqa: B023
            deaths = node.kinds("exited")
            assert [event.restart_s for event in deaths] == [0.01, 0.02, 0.04, 0.04]
            assert [event.status for event in deaths] == [3] * 4

    run(main(), LIMIT_S)
    assert "another starts in" in caplog.text


@pytest.mark.parametrize(
    ("factory", "text"),
    [(worker_hosts.broken, "RuntimeError: this factory does not work"), (worker_hosts.silent, "status 7")],
)
@looped
async def test_a_factory_that_fails_at_the_start_ends_everything(factory: Any, text: str) -> None:
    supervisor = Supervisor(factory, workers=2)
    with pytest.raises(WorkerFailed, match=text):
        await supervisor.start()
    assert supervisor.pids == []
    await supervisor.wait()


def told_of(events: list[WorkerEvent]) -> dict[int, list[str]]:
    """For each process, what the supervisor has told of it, in order."""
    kinds: dict[int, list[str]] = {}
    for event in events:
        kinds.setdefault(event.pid, []).append(event.kind)
    return kinds


def test_a_worker_that_serves_and_dies_before_anybody_looks_is_told_of_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is killed as it says that it is ready, and the supervisor looks only when it has ended."""
    monkeypatch.setattr(limits, "WORKER_BACKOFF_MIN_S", 0.01)
    heard, serving_, is_short_lived = Process._heard, Supervisor._serving, [False]

    def heard_and_killed(process: Process, message: dict[str, Any]) -> None:
        heard(process, message)
        if message["event"] == "ready" and is_short_lived[0]:
            process.kill()

    async def serving_late(supervisor: Supervisor, process: Process) -> None:
        if is_short_lived[0]:
            await asyncio.wait([process.ended])
        await serving_(supervisor, process)

    monkeypatch.setattr(Process, "_heard", heard_and_killed)
    monkeypatch.setattr(Supervisor, "_serving", serving_late)

    async def main() -> None:
        async with serving(workers=1) as node:
            is_short_lived[0] = True
            os.kill(node.supervisor.pids[0], signal.SIGKILL)
            await eventually(lambda: len(node.kinds("exited")) >= 2, LIMIT_S)
            is_short_lived[0] = False
            second = node.kinds("exited")[1]
            assert (second.status, second.restart_s) == (-signal.SIGKILL, 0.02)
            assert told_of(node.events)[second.pid] == ["started", "exited"]

            # As the replacement of a restart it leaves the old worker in its place.
            await eventually(lambda: node.supervisor.pids, LIMIT_S)
            await eventually(lambda: node.kinds("started")[-1].pid in node.supervisor.pids, LIMIT_S)
            (kept,) = node.supervisor.pids
            is_short_lived[0] = True
            with pytest.raises(WorkerFailed, match=f"status {-signal.SIGKILL}"):
                await node.supervisor.restart()
            is_short_lived[0] = False
            assert node.supervisor.pids == [kept]
            assert told_of(node.events)[node.kinds("exited")[-1].pid] == ["started", "exited"]

    run(main(), LIMIT_S)


@looped
async def test_the_end_of_a_worker_is_told_although_its_restart_was_cancelled() -> None:
    async with serving(workers=1) as node:
        (old,) = node.supervisor.pids
        stream = await (await node.connect()).new_stream("/echo/1.0.0")
        await stream.write(b"x")
        await stream.read_exactly(1)  # it holds up the drain of the old worker
        restarting = asyncio.create_task(node.supervisor.restart())
        await eventually(lambda: node.kinds("draining"), LIMIT_S)
        restarting.cancel()
        await asyncio.wait([restarting])
        await stream.close()
        await eventually(lambda: old in {event.pid for event in node.kinds("exited")}, LIMIT_S)
        assert told_of(node.events)[old] == ["started", "draining", "exited"]


def test_a_worker_that_says_it_is_ready_a_second_time_is_replaced_and_holds_up_no_drain(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with serving(workers=1, factory=worker_hosts.ready_twice) as node:
            await eventually(lambda: node.kinds("exited"), LIMIT_S)
            assert node.kinds("exited")[0].status == -signal.SIGKILL

    run(main(), LIMIT_S)
    assert "said twice that it is ready" in caplog.text


def open_sockets() -> set[str]:
    """Those this process has open, by the kernel's names."""
    links = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.add(os.readlink(f"/proc/self/fd/{fd}"))
    return {link for link in links if link.startswith("socket:")}


def test_a_start_that_is_cancelled_leaves_no_process_and_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def recorded(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **options))
        return started[-1]

    async def never(sock: Any) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        settings = Settings(0, PrivateKey.generate().to_protobuf(), (), (), 1, 1.0, Ticket(1, -1, -1))
        before = open_sockets()
        starting = asyncio.ensure_future(
            Process.start(settings, pickled(worker_hosts.make, ()), [], lambda *_: None)
        )
        await eventually(lambda: started)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert started[0].returncode == -signal.SIGKILL
        assert not is_alive(started[0].pid)
        await eventually(lambda: open_sockets() <= before)

    monkeypatch.setattr(subprocess, "Popen", recorded)
    monkeypatch.setattr(
        "p2pcore.workers.process.Channel.over", never
    )  # a start that is quick cannot be cancelled
    run(main(), LIMIT_S)


@looped
async def test_factories_may_wait_take_arguments_and_report() -> None:
    async with serving(factory=worker_hosts.make_later, args=("hello",)) as node:
        await eventually(lambda: len(node.kinds("report")) == 2, LIMIT_S)
        reports = sorted(node.kinds("report"), key=lambda event: event.index)
        assert [event.fields for event in reports] == [
            {"greeting": "hello", "index": 0},
            {"greeting": "hello", "index": 1},
        ]


@looped
async def test_limits_are_divided_among_workers() -> None:
    given = Limits(max_conns=10, max_streams=100, max_conns_per_peer=3)
    async with serving(factory=worker_hosts.limited, limits=given) as node:
        await eventually(lambda: len(node.kinds("report")) == 2, LIMIT_S)
        parts = [event.fields for event in node.kinds("report")]
    assert parts == [{"conns": 5, "streams": 50, "per_peer": 3}] * 2


def test_limits_that_contradict_each_other_for_one_worker_are_found_by_the_supervisor() -> None:
    given = Limits(max_conns=4, reserved=[Reserved(2, "203.0.113.0/24")])
    Supervisor(worker_hosts.make, workers=1, limits=given)
    with pytest.raises(ValueError, match=r"reserved must be fewer places than max_conns \(2\)"):
        Supervisor(worker_hosts.make, workers=2, limits=given)


@looped
async def test_sigterm_drains_one_worker_for_good() -> None:
    async with serving() as node:
        conn = await node.connect()
        told = await node.who(conn)
        stream = await conn.new_stream("/echo/1.0.0")
        await stream.write(b"before")
        assert await stream.read_exactly(6) == b"before"
        os.kill(told, signal.SIGTERM)
        await eventually(lambda: node.kinds("draining"), LIMIT_S)
        in_a_row = 0
        while in_a_row < 20:  # it serves those who came before it had stopped
            in_a_row = 0 if await node.who(await node.connect()) == told else in_a_row + 1
        await stream.write(b"during")
        assert await stream.read_exactly(6) == b"during"
        await stream.close()
        error = await ended_by(conn)
        assert isinstance(error, GoAway)
        assert error.code == codes.CONN_SHUTDOWN
        await eventually(lambda: node.kinds("exited"), LIMIT_S)
        (ended,) = node.kinds("exited")
        assert (ended.pid, ended.status, ended.restart_s) == (told, 0, None)


@looped
async def test_a_second_sigterm_ends_a_worker_at_once() -> None:
    async with serving(workers=1) as node:
        stream = await (await node.connect()).new_stream("/echo/1.0.0")
        await stream.write(b"x")
        await stream.read_exactly(1)
        (pid,) = node.supervisor.pids
        os.kill(pid, signal.SIGTERM)
        await eventually(lambda: node.kinds("draining"), LIMIT_S)
        os.kill(pid, signal.SIGTERM)
        await node.supervisor.wait()
        assert [event.status for event in node.kinds("exited")] == [128 + signal.SIGTERM]


@pytest.mark.slow
@looped
async def test_a_rolling_restart_refuses_nobody_and_cuts_nobody_off() -> None:
    async with serving() as node:
        before = set(node.supervisor.pids)
        conn = await node.connect()
        served_by = await node.who(conn)
        stream = await conn.new_stream("/echo/1.0.0")
        restarting = asyncio.create_task(node.supervisor.restart())
        dialled, is_open = 0, True
        while not restarting.done():
            fresh = await node.connect()  # raises where it is refused
            with contextlib.suppress(ConnectionClosed):  # drained before it asked
                assert await node.who(fresh)
            await fresh.close()
            dialled += 1
            if is_open:
                await stream.write(b"x")
                assert await stream.read_exactly(1) == b"x"
            if served_by in {event.pid for event in node.kinds("draining")}:
                is_open = False
                await stream.close()  # which that worker waits for, and the restart for that worker
        await restarting
        assert dialled > 2
        assert len(node.supervisor.pids) == 2
        assert not before & set(node.supervisor.pids)
        assert [event.status for event in node.kinds("exited")] == [0, 0]


@looped
async def test_a_drain_cuts_off_what_goes_on_after_the_deadline() -> None:
    async with serving(workers=1, drain_s=0.2) as node:
        conn = await node.connect()
        stream = await conn.new_stream("/echo/1.0.0")
        await stream.write(b"x")
        await stream.read_exactly(1)
        ended = asyncio.create_task(ended_by(conn))
        await node.supervisor.drain()
        error = await ended
        assert isinstance(error, GoAway)
        assert error.code == codes.CONN_SHUTDOWN
        assert [event.status for event in node.kinds("exited")] == [0]


@looped
async def test_one_worker_can_be_stopped() -> None:
    async with serving() as node:
        await node.supervisor.stop_worker(1)
        assert [each.index for each in await node.supervisor.status()] == [0]
        pids = {await node.who(await node.connect()) for _ in range(10)}
        assert pids == set(node.supervisor.pids)


@looped
async def test_a_port_in_use_is_not_shared_with_strangers() -> None:
    async with serving(workers=1) as node:
        taken = node.addr.without_p2p()
        with pytest.raises(ListenError) as caught:
            await Supervisor(worker_hosts.make, workers=1, listen=[taken]).start()
        assert [addr for addr, _ in caught.value.causes] == [taken]
        both = [taken, "/ip4/127.0.0.1/tcp/0"]
        async with Supervisor(worker_hosts.make, workers=1, listen=both) as second:
            assert len(second.addrs_with_peer) == 1
            assert [addr for addr, _ in second.listen_failures] == [taken]


@pytest.mark.parametrize("workers", [0, -1, limits.MAX_WORKERS + 1])
def test_the_number_of_workers_is_bounded(workers: int) -> None:
    with pytest.raises(ValueError, match="workers"):
        Supervisor(worker_hosts.make, workers=workers)


def test_what_workers_could_not_import_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot import"):
        Supervisor(lambda worker: worker.host(), workers=1)
    with pytest.raises(ValueError, match="at least one"):
        Supervisor(worker_hosts.make, workers=1, listen=())


# -- whole programs ----------------------------------------------------------------------------

PROGRAM = """
from p2pcore.workers import serve

def make(worker):
    return worker.host(echo=True)

def show(supervisor):
    print(*supervisor.addrs_with_peer, *supervisor.pids, flush=True)

if __name__ == "__main__":
    serve(make, workers=2, on_start=show)
"""


def started(program: Path) -> tuple[subprocess.Popen[str], str, list[int]]:
    process = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    addr, *pids = process.stdout.readline().split()
    return process, addr, list(map(int, pids))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_a_program_serves_until_a_signal(program: Path) -> None:
    process, addr, pids = started(program)

    async def main() -> None:
        async with Host(listen=(), **BARE) as dialer:
            assert await dialer.echo(addr, b"hello") == b"hello"

    try:
        run(main(), LIMIT_S)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=seconds(LIMIT_S))
    assert (process.returncode, out, err) == (0, "", "")
    assert not any(map(is_alive, pids))


@looped
async def test_workers_end_with_their_supervisor(program: Path) -> None:
    process, _, pids = started(program)
    process.kill()
    process.communicate(timeout=seconds(LIMIT_S))

    await eventually(lambda: not any(map(is_running, pids)), LIMIT_S)


def is_running(pid: int) -> bool:
    """Alive, and no zombie that nobody collects."""
    try:
        return re.search(r"^State:\s+[^Z]", Path(f"/proc/{pid}/status").read_text(), re.M) is not None
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_frozen_program_is_told_that_it_has_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """sys.executable is the program itself there: each worker would be one more of it."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(LocalProtocolError, match="frozen"):
        Supervisor(worker_hosts.make, workers=1)


# -- workers that stand still ----------------------------------------------------------------------


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life ten times a second, and a worker without one for half a second is silent."""
    monkeypatch.setattr(limits, "WORKER_HEARTBEAT_S", seconds(0.1))
    monkeypatch.setattr(limits, "WORKER_SILENT_S", seconds(0.5))
    monkeypatch.setattr(limits, "WORKER_ANSWER_S", seconds(0.1))


def test_a_stopped_worker_is_noticed_within_ten_seconds() -> None:
    assert limits.WORKER_SILENT_S + limits.WORKER_HEARTBEAT_S <= 10


@looped
async def test_a_worker_that_is_stopped_is_replaced_and_status_says_so(
    quick_looks: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(max_blocked_s=0) as node:
        await node.supervisor.status()
        stopped = node.supervisor.pids[0]
        os.kill(stopped, signal.SIGSTOP)
        ours = {each.pid: each for each in await node.supervisor.status()}
        assert ours[stopped].silent_s > 0
        assert ours[stopped].rss_bytes > 0, "the last that is known"
        assert sum(each.silent_s for each in ours.values()) == ours[stopped].silent_s
        await eventually(lambda: len(node.kinds("started")) == 3, LIMIT_S)
        (exited,) = node.kinds("exited")
        assert (exited.pid, exited.status) == (stopped, -signal.SIGKILL)
        assert "it was stopped, and silent for" in caplog.text
        pids = {await node.who(await node.connect()) for _ in range(20)}
        assert stopped not in pids
        assert [each.silent_s for each in await node.supervisor.status()] == [0, 0]


@looped
async def test_a_worker_whose_loop_is_blocked_for_a_while_lives_on(
    quick_looks: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(1, worker_hosts.blocking, args=(seconds(2.0),)) as node:
        pid = await node.who(await node.connect())
        silent = f"(pid {pid}) gives no sign of life"
        os.kill(pid, signal.SIGUSR1)
        await eventually(lambda: silent in caplog.text, LIMIT_S)
        async with asyncio.timeout(LIMIT_S):
            conn = None
            while (
                conn is None
            ):  # the kernel takes connections at once; a dial may give up before the worker goes on
                with contextlib.suppress(DialError):
                    conn = await node.connect()
        assert await node.who(conn) == pid
        assert not node.kinds("exited")
        assert caplog.text.count(silent) == 1


@looped
async def test_a_worker_whose_loop_is_blocked_for_ever_is_replaced(
    quick_looks: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(1, worker_hosts.blocking, args=(1e6,), max_blocked_s=seconds(1.0)) as node:
        pid = await node.who(await node.connect())
        os.kill(pid, signal.SIGUSR1)
        await eventually(lambda: len(node.kinds("started")) == 2, LIMIT_S)
        assert "its event loop was blocked" in caplog.text
        assert await node.who(await node.connect()) != pid


@looped
async def test_a_supervisor_that_stood_still_itself_replaces_nobody(quick_looks: None) -> None:
    async with serving(1) as node:
        (process,) = node.supervisor._processes
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(limits.WORKER_SILENT_S * 2)  # noqa: ASYNC251 - all of us stand still, as on a machine that sleeps
        os.kill(process.pid, signal.SIGCONT)
        process._look()
        assert not process.is_silent
        await eventually(lambda: asyncio.get_running_loop().time() - process._heard_at < 1, LIMIT_S)
        assert not node.kinds("exited")
