"""UpgradedListener outlives errors of accept(2), the loss of its socket, a process without descriptors."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import HANG_S, eventually, looped, seconds, settle
from nodes import (
    LOOPBACK,
    Reports,
    make_node,
    open_socket,
    read_all,
)
from p2pcore.errors import ListenerClosed
from p2pcore.manet.listener import MaListener
from p2pcore.upgrade import listener as listener_module
from p2pcore.upgrade.listener import (
    INTERNAL_ERROR,
    ListenerState,
    UpgradedListener,
)
from p2pcore.values.multiaddr import Multiaddr

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")  # a socket left to the collector


# -- survival ------------------------------------------------------------------------------------


class Scripted:
    """A MaListener whose accepts fail as a script says before they work."""

    def __init__(self, *errors: int) -> None:
        self.inner = MaListener.bind(LOOPBACK)
        self.errors = list(errors)
        self.rebind_errors: list[int] = []

    @property
    def multiaddr(self) -> Multiaddr:
        return self.inner.multiaddr

    async def accept(self) -> Any:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, "scripted")
        return await self.inner.accept()

    async def rebind(self) -> None:
        if self.rebind_errors:
            raise OSError(self.rebind_errors.pop(0), "scripted")
        await self.inner.rebind()

    async def close(self) -> None:
        await self.inner.close()


async def scripted(inner: Scripted, **options: Any) -> tuple[UpgradedListener, list[ListenerState]]:
    states: list[ListenerState] = []
    node = make_node(
        backoff_min=0.001,
        backoff_max=0.002,
        news=Reports(changed=lambda state, *_: states.append(state)),
        **options,
    )
    return node.upgrader.upgrade_listener(inner), states


async def still_works(listener: UpgradedListener) -> None:
    outbound = await make_node().dial(listener.multiaddr)
    (await listener.accept()).abort()
    outbound.abort()


@looped
async def test_temporary_errors_are_paused_over_and_counted() -> None:
    numbers = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EPROTO]
    listener, states = await scripted(Scripted(*numbers))
    await still_works(listener)
    assert set(listener.accept_errors) == {errno.errorcode[number] for number in numbers}
    assert listener.num_rebinds == 0
    assert listener._backoff.next() == 0.001  # a success starts over
    assert states == [ListenerState.RETRYING, ListenerState.LISTENING] * len(numbers)
    await listener.close()
    assert listener.state is ListenerState.CLOSED
    assert states[-1] is ListenerState.CLOSED


@looped
async def test_a_lost_socket_is_bound_anew_however_often_that_fails() -> None:
    inner = Scripted(errno.EBADF)
    inner.rebind_errors = [errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EMFILE]
    listener, _ = await scripted(inner)
    await eventually(lambda: listener.num_rebinds == 1)
    await still_works(listener)
    await listener.close()


@looped
async def test_a_socket_shut_down_under_the_listener_is_replaced() -> None:
    inner = MaListener.bind(LOOPBACK)
    listener = make_node().upgrader.upgrade_listener(inner)
    await still_works(listener)
    assert inner._sock is not None
    inner._sock.shutdown(socket.SHUT_RDWR)
    await eventually(lambda: listener.num_rebinds == 1)
    await still_works(listener)
    await listener.close()


@looped
async def test_close_ends_a_listener_that_is_pausing() -> None:
    inner = Scripted(errno.EBADF)
    inner.rebind_errors = [errno.EADDRINUSE] * 10000
    node = make_node(backoff_min=3600.0, backoff_max=3600.0)
    listener = node.upgrader.upgrade_listener(inner)
    await eventually(lambda: listener.state is ListenerState.RETRYING)
    await listener.close()
    with pytest.raises(ListenerClosed):
        await listener.accept()


class Broken(Scripted):
    async def accept(self) -> Any:
        raise ZeroDivisionError("a fault of ours")


@looped
async def test_a_listener_that_does_end_says_why() -> None:
    inner = Broken()
    states: list[tuple[ListenerState, BaseException | None, Multiaddr]] = []
    node = make_node(news=Reports(changed=lambda *args: states.append(args)))
    listener = node.upgrader.upgrade_listener(inner)
    with pytest.raises(ListenerClosed) as caught:
        await listener.accept()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert [(state, type(error)) for state, error, _ in states] == [(ListenerState.CLOSED, ZeroDivisionError)]
    with pytest.raises(ListenerClosed):
        await inner.inner.accept()
    await listener.close()


class FaultyUpgrader:
    """An upgrader with a bug."""

    async def upgrade_inbound(self, conn: Any, deadline: float | None = None) -> Any:
        raise ZeroDivisionError

    async def upgrade_outbound(self, conn: Any, peer: Any, deadline: float | None = None) -> Any:
        raise ZeroDivisionError

    def upgrade_listener(self, inner: Any) -> Any:
        raise ZeroDivisionError


@looped
async def test_a_fault_in_one_upgrade_or_in_an_observer_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def faulty_observer(*args: object) -> None:
        raise KeyError("observer")

    hooks = listener_module.ListenerHooks(news=Reports(failed=faulty_observer))
    listener = UpgradedListener(MaListener.bind(LOOPBACK), FaultyUpgrader(), hooks=hooks)
    for count in (1, 2):
        sock = await open_socket(listener.multiaddr)
        assert await read_all(sock) == b""
        sock.close()
        assert dict(listener.failures) == {INTERNAL_ERROR: count}
    assert listener.state is ListenerState.LISTENING
    await listener.close()
    assert {record.levelname for record in caplog.records if record.name == "p2pcore.listener"} == {"ERROR"}


STORM = """
import asyncio, errno, os, resource, socket, sys
sys.path.insert(0, sys.argv[1])
from harness import run
from nodes import make_node, open_raw

accepted = []

async def collect(listener):
    while True:
        accepted.append(await listener.accept())

async def main():
    node, dialler = make_node(max_upgrading=6, max_slow=0, max_waiting=0), make_node()
    async with node.listening() as listener:
        raws = [await open_raw(listener.multiaddr) for _ in range(40)]
        early = [await dialler.upgrader.upgrade_outbound(raw, node.peer) for raw in raws[:10]]
        while listener.num_ready < 10 or listener.num_upgrading < 6:
            await asyncio.sleep(0)
        # 10 are finished, 6 under way, 24 in the backlog. From here on there is no descriptor to spare.
        used = max(map(int, os.listdir("/proc/self/fd"))) + 1
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        fill = []
        try:
            while True:
                fill.append(os.dup(0))
        except OSError as error:
            assert error.errno == errno.EMFILE
        collecting = asyncio.ensure_future(collect(listener))
        finishing = [
            asyncio.ensure_future(dialler.upgrader.upgrade_outbound(raw, node.peer)) for raw in raws[10:]
        ]
        while listener.accept_errors["EMFILE"] < 5:
            await asyncio.sleep(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for fd in fill:
            os.close(fd)
        await asyncio.wait(finishing)
        shed = [task for task in finishing if task.exception() is not None]
        alive = early + [task.result() for task in finishing if task.exception() is None]
        assert len(shed) == listener._inner.shed >= 5, (len(shed), listener._inner.shed)
        assert len(alive) >= 16
        # Nothing that was accepted is lost: whatever finished at the dialler comes out here, alive.
        while len(accepted) < len(alive):
            await asyncio.sleep(0)
        assert {str(c.remote_multiaddr) for c in accepted} == {str(c.local_multiaddr) for c in alive}
        assert not any(c.is_closed for c in accepted)
        again = await dialler.dial(listener.multiaddr)
        while len(accepted) == len(alive):
            await asyncio.sleep(0)
        assert accepted[-1].remote_multiaddr == again.local_multiaddr
        collecting.cancel()
        for conn in (*accepted, *alive, again):
            conn.abort()
    print("ok")

run(main())
"""


def test_a_storm_without_descriptors_ends_and_nothing_accepted_is_lost() -> None:
    result = subprocess.run(
        [sys.executable, "-c", STORM, str(Path(__file__).parents[1])],
        capture_output=True, text=True, timeout=seconds(2 * HANG_S), check=False,
    )  # fmt: skip
    assert result.stdout.strip() == "ok", result.stderr


class LateUpgrader(FaultyUpgrader):
    """Finishes although it was cancelled."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    async def upgrade_inbound(self, conn: Any, deadline: float | None = None) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return self

    def abort(self, code: int) -> None:
        self.codes.append(code)


@looped
async def test_a_connection_finished_after_close_is_closed() -> None:
    upgrader = LateUpgrader()
    listener = UpgradedListener(MaListener.bind(LOOPBACK), upgrader)
    sock = await open_socket(listener.multiaddr)
    await eventually(lambda: listener.num_upgrading)
    await settle(20)
    await listener.close()
    assert upgrader.codes == [0x1002]
    assert listener.num_ready == 0
    sock.close()
