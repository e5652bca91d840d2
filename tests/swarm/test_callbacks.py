"""Nothing that an application's callback does ends a listener, whichever it is and whatever it raises."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from harness import eventually, looped
from nodes import LOOPBACK, Reports, open_socket, read_all
from p2pcore import BasicGater, Host, P2PError
from p2pcore.interfaces import ListenerState
from p2pcore.manet.listener import MaListener
from p2pcore.swarm.admission import Admission
from p2pcore.swarm.events import AddrsChanged, ListenerEnded, UpgradeFailed
from p2pcore.upgrade.listener import ListenerHooks, UpgradedListener

HOOKS = [name for name in dir(BasicGater) if name.startswith("intercept_")]
FAULTS = [KeyError, asyncio.CancelledError, GeneratorExit]


class Faulty(BasicGater):
    """Raises `fault` in `hook` while it is set."""

    def __init__(self, hook: str, fault: type[BaseException]) -> None:
        super().__init__()
        self.fault: type[BaseException] | None = fault
        setattr(self, hook, lambda *args: self._answer())

    def _answer(self) -> bool:
        if self.fault is not None:
            raise self.fault("the database is down")
        return True


class Observer:
    """A notifiee that raises in every method."""

    def __init__(self, fault: type[BaseException]) -> None:
        self._fault = fault

    def __getattr__(self, name: str) -> Callable[..., None]:
        def method(*args: object) -> None:
            raise self._fault(name)

        return method


async def connects(dialer: Host, server: Host) -> bool:
    """Whether a new connection works and stays."""
    try:
        conn = await dialer.swarm.dial_addr(server.addrs_with_peer[0])
        await dialer.ping(conn)
        await conn.close()
    except P2PError:
        return False
    return True


@pytest.mark.parametrize("hook", HOOKS)
def test_half_a_gater_is_refused_when_it_is_given(hook: str) -> None:
    gater = BasicGater()
    setattr(gater, hook, None)
    with pytest.raises(TypeError, match=f"gater must be a Gater .* without {hook}"):
        Host(gater=gater)
    with pytest.raises(TypeError, match="without intercept_peer_dial, intercept_addr_dial, "):
        Admission(object())  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("hook", ["intercept_accept", "intercept_secured", "intercept_upgraded"])
@looped
async def test_a_gater_that_raises_refuses_and_the_listener_lives(
    hook: str, fault: type[BaseException]
) -> None:
    gater = Faulty(hook, fault)
    async with Host(gater=gater) as server, Host(listen=[]) as dialer:
        bound = server.addrs
        for _ in range(3):
            assert not await connects(dialer, server)
        gater.fault = None
        assert await connects(dialer, server)
        assert server.addrs == bound


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("hook", ["intercept_peer_dial", "intercept_addr_dial"])
@looped
async def test_a_gater_that_raises_refuses_a_dial(hook: str, fault: type[BaseException]) -> None:
    gater = Faulty(hook, fault)
    async with Host() as server, Host(gater=gater) as dialer:
        for _ in range(3):
            with pytest.raises(P2PError):
                await dialer.connect(server.addrs_with_peer[0])
        gater.fault = None
        assert await dialer.connect(server.addrs_with_peer[0], ignore_backoff=True)


@looped
async def test_a_gater_that_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with Host(gater=Faulty("intercept_accept", KeyError)) as server, Host(listen=[]) as dialer:
        for _ in range(3):
            assert not await connects(dialer, server)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in told] == ["the connection gater (accept) raised"]
    assert "the database is down" in caplog.text


@pytest.mark.parametrize("fault", FAULTS)
@looped
async def test_notifiees_and_announce_that_raise_end_nothing(fault: type[BaseException]) -> None:
    def announce(addrs: Any) -> Any:
        raise fault("announce")

    async with Host() as server, Host(listen=[]) as dialer:
        events = server.events(AddrsChanged, ListenerEnded)
        server.notify(Observer(fault))  # type: ignore[arg-type]
        bound = server.swarm.interface_listen_addresses()
        server.swarm.announce = announce
        server.swarm.addrs_changed()
        assert server.swarm.interface_listen_addresses() == bound  # the last good answer
        added = await server.swarm.add_listen_addr("/ip4/127.0.0.1/tcp/0")
        assert added in server.swarm.listen_addresses()
        assert await connects(dialer, server)
        await server.swarm.listen_close(added)
        assert len(server.swarm.listen_addresses()) == 1
        assert await connects(dialer, server)
        events.close()
        assert ListenerEnded(added, None) in [event async for event in events]


@looped
async def test_addresses_are_not_told_by_an_announce_that_never_worked() -> None:
    """It may be there to hide some of them."""

    def announce(addrs: Any) -> Any:
        raise KeyError

    host = Host(listen=[])
    host.swarm.announce = announce
    await host.swarm.listen("/ip4/127.0.0.1/tcp/0")
    assert host.swarm.listen_addresses()
    assert host.swarm.interface_listen_addresses() == []
    await host.swarm.close()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["admits", "upgrade_failed", "accept_refused"])
@looped
async def test_the_callbacks_of_a_listener_may_raise(name: str, fault: type[BaseException]) -> None:
    calls: list[str] = []

    def callback(*args: object) -> bool:
        calls.append(name)
        raise fault(name)

    class Refuses:
        async def upgrade_inbound(self, conn: Any, deadline: float | None = None) -> Any:
            raise ZeroDivisionError

    news = Reports()
    hooks = ListenerHooks(
        admits=callback if name == "admits" else lambda conn: name != "accept_refused", news=news
    )
    setattr(news, name, callback)
    listener = UpgradedListener(MaListener.bind(LOOPBACK), Refuses(), hooks=hooks)  # type: ignore[arg-type]
    for count in (1, 2):
        sock = await open_socket(listener.multiaddr)
        assert await read_all(sock) == b""
        sock.close()
        await eventually(lambda count=count: listener.failures.total() == count)
    assert listener.state is ListenerState.LISTENING
    await listener.close()
    assert calls
    assert listener.state is ListenerState.CLOSED


@looped
async def test_a_connection_that_cannot_be_taken_over_ends_no_listener(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Host() as server, Host(listen=[]) as dialer:
        with monkeypatch.context() as patched:
            patched.setattr(server.swarm._listeners, "_begin_conn", lambda conn: 1 / 0)
            assert not await connects(dialer, server)
        assert await connects(dialer, server)


# -- counters ----------------------------------------------------------------------------------


@looped
async def test_counters_never_fall_when_listeners_come_and_go() -> None:
    async with Host(listen=[]) as host:
        before: Counter[str] = Counter()
        for count in (1, 2, 3):
            bound = await host.swarm.add_listen_addr("/ip4/127.0.0.1/tcp/0")
            sock = await open_socket(bound)
            sock.close()
            await eventually(lambda count=count: _num_failed(host) == count)
            await host.swarm.listen_close(bound)
            after = Counter(host.counters())
            assert all(after[name] >= number for name, number in before.items())
            assert _num_failed(host) == count
            before = after
    assert _num_failed(host) == 3


def _num_failed(host: Host) -> int:
    return sum(count for name, count in host.counters().items() if name.startswith("upgrades failed"))


@looped
async def test_counters_do_not_fall_while_a_listener_closes() -> None:
    async with Host() as host:
        sock = await open_socket(host.addrs[0])
        sock.close()
        await eventually(lambda: _num_failed(host) == 1)
        closing = asyncio.ensure_future(host.swarm.listen_close(host.addrs[0]))
        while not closing.done():
            assert _num_failed(host) == 1
            await asyncio.sleep(0)
        assert _num_failed(host) == 1


@pytest.mark.parametrize("path", ["answered", "unhealthy", "broken", "cancelled", "nobody"])
@looped
async def test_an_http_request_that_was_answered_is_no_failed_upgrade(path: str) -> None:
    from p2pcore import HttpAnswer, WebsocketOptions

    async def handler(method: str, target: str, headers: Any) -> HttpAnswer:
        if path == "broken":
            raise KeyError
        if path == "cancelled":
            raise asyncio.CancelledError
        return HttpAnswer(200 if path == "answered" else 503)

    options = WebsocketOptions(http_handler=None if path == "nobody" else handler)
    async with Host(listen=["/ip4/127.0.0.1/tcp/0/ws"], websocket=options) as host:
        events = host.events(UpgradeFailed)
        sock = await open_socket(host.addrs[0].decapsulate("/ws"))
        await asyncio.get_running_loop().sock_sendall(sock, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await read_all(sock)
        sock.close()
        is_failure = path in ("broken", "cancelled", "nobody")
        name = "upgrades failed: transport handshake" if is_failure else "HTTP requests answered"
        await eventually(lambda: host.counters().get(name) == 1)
        assert _num_failed(host) == is_failure
        events.close()
        assert len([event async for event in events]) == is_failure
    codes = {"answered": b"200", "unhealthy": b"503", "broken": b"500", "cancelled": b"500", "nobody": b"404"}
    assert codes[path] in answer.splitlines()[0]
