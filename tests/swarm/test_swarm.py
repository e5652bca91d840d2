"""Connections of a swarm: who is told what and when, which one is best, and how everything ends."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest

from harness import eventually, looped, run
from hosts import pair
from p2pcore import codes, limits
from p2pcore.errors import ConnectionClosed, StreamReset, SwarmClosed
from p2pcore.interfaces import Conn, Network, Notifiee
from p2pcore.swarm.conns import Connectedness
from p2pcore.upgrade.upgrader import Upgraded
from swarm_fakes import FakeConn, Recorder, addr, make_swarm, peer

THEM = peer(1)


# -- notifications -----------------------------------------------------------------------------


@looped
async def test_each_notifiee_hears_connected_then_disconnected_once_in_order_of_registration() -> None:
    log: list[Any] = []
    swarm, _ = make_swarm()
    for name in "abc":
        swarm.notify(Recorder(log, name))
    fake = FakeConn(THEM)
    conn = swarm.add_conn(fake)
    assert log == [(name, "connected", conn) for name in "abc"]
    log.clear()
    fake.end()
    await eventually(lambda: log)
    fake.end()
    await conn.close()
    conn.abort()
    assert log == [(name, "disconnected", conn) for name in "abc"]
    await swarm.close()
    assert len(log) == 3


@pytest.mark.parametrize("how", ["close", "abort", "end"])
@looped
async def test_a_connection_that_ends_inside_connected_is_told_in_order(how: str) -> None:
    log: list[Any] = []
    swarm, _ = make_swarm()
    first, second = Recorder(log, "first"), Recorder(log, "second")
    swarm.notify(first)
    swarm.notify(second)
    tasks = []

    def end(network: Any, conn: Any) -> None:
        if how == "close":
            tasks.append(asyncio.create_task(conn.close()))
        else:
            (conn.abort if how == "abort" else conn.session.end)()

    first.on["connected"] = end
    fake = FakeConn(THEM)
    swarm.add_conn(fake)
    await eventually(lambda: len(log) == 4)
    told = [(name, event) for name, event, _ in log]
    assert told == [
        ("first", "connected"),
        ("second", "connected"),
        ("first", "disconnected"),
        ("second", "disconnected"),
    ]
    assert swarm.num_conns == 0
    await swarm.close()


@looped
async def test_a_connection_is_registered_before_connected_and_gone_before_disconnected() -> None:
    swarm, _ = make_swarm()
    seen: list[tuple[str, int]] = []
    recorder = Recorder([])
    for event in ("connected", "disconnected"):
        recorder.on[event] = lambda network, conn, event=event: seen.append(
            (event, len(network.conns_to_peer(THEM)))
        )
    swarm.notify(recorder)
    conn = swarm.add_conn(FakeConn(THEM))
    await conn.close()
    assert seen == [("connected", 1), ("disconnected", 0)]
    await swarm.close()


@looped
async def test_no_stream_is_let_in_before_every_connected_has_returned() -> None:
    swarm, _ = make_swarm()
    recorder = Recorder([])
    handlers: list[Any] = []
    recorder.on["connected"] = lambda network, conn: handlers.append(conn.session.handler)
    swarm.notify(recorder)
    fake = FakeConn(THEM)
    swarm.add_conn(fake)
    assert handlers == [None]
    assert fake.handler is not None
    await swarm.close()


@looped
async def test_a_notifiee_that_raises_is_logged_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    swarm, _ = make_swarm()
    bad = Recorder([])
    for event in ("listen", "listen_close", "connected", "disconnected"):
        bad.on[event] = lambda network, what: 1 / 0
    swarm.notify(bad)
    swarm.notify(Recorder(log))
    await swarm.listen(addr(1))
    conn = swarm.add_conn(FakeConn(THEM))
    await conn.close()
    await swarm.close()
    assert [event for event, _ in log] == ["listen", "connected", "disconnected", "listen_close"]
    assert sum(record.message.endswith(") raised") for record in caplog.records) == 4
    assert "ZeroDivisionError" in caplog.text


@looped
async def test_notifiees_may_come_and_go_inside_a_callback() -> None:
    log: list[Any] = []
    swarm, _ = make_swarm()
    first, second, third = (Recorder(log, name) for name in ("first", "second", "third"))

    def change(network: Any, conn: Any) -> None:
        network.stop_notify(first)
        network.stop_notify(second)
        network.notify(third)

    first.on["connected"] = change
    swarm.notify(first)
    swarm.notify(second)
    swarm.notify(second)
    swarm.add_conn(FakeConn(THEM))
    assert [entry[:2] for entry in log] == [("first", "connected")]
    swarm.add_conn(FakeConn(THEM))
    assert [entry[:2] for entry in log][1:] == [("third", "connected")]
    swarm.stop_notify(second)
    await swarm.close()


@looped
async def test_a_recorder_and_a_swarm_connection_satisfy_their_interfaces() -> None:
    def takes(network: Network, conn: Conn, notifiee: Notifiee) -> None: ...

    swarm, _ = make_swarm()
    conn = swarm.add_conn(FakeConn(THEM))
    takes(swarm, conn, Recorder([]))
    assert isinstance(conn, Conn)
    for name in vars(Network):
        assert name.startswith("_") or hasattr(swarm, name), name
    await swarm.close()


@looped
async def test_a_connection_shows_what_its_interface_has_and_no_more() -> None:
    swarm, _ = make_swarm()
    conn = swarm.add_conn(FakeConn(THEM))
    shown = {name for name in dir(conn) if not name.startswith("_")}
    assert shown == {name for name in vars(Conn) if not name.startswith("_")}
    await swarm.close()


@looped
async def test_a_swarm_keeps_nothing_of_the_record_it_made_a_connection_of() -> None:
    async with pair() as p:
        for conn in (p.conn, p.server_conn):
            assert not [each for each in gc.get_referrers(conn.session) if isinstance(each, Upgraded)]


# -- which connections there are ---------------------------------------------------------------


@looped
async def test_connection_ids_end_like_the_peer_id_and_are_unique() -> None:
    swarm, _ = make_swarm()
    first, second = swarm.add_conn(FakeConn(THEM)), swarm.add_conn(FakeConn(THEM))
    assert first.id.rpartition("-")[0] == str(THEM)[-8:]
    assert first.id != second.id
    assert first.id in repr(first)
    await swarm.close()


@looped
async def test_the_best_connection_has_most_streams_and_of_equals_is_the_newest() -> None:
    swarm, _ = make_swarm()
    assert swarm.best_conn(THEM) is None
    assert swarm.connectedness(THEM) is Connectedness.NOT_CONNECTED
    old, busy, new = (swarm.add_conn(FakeConn(THEM, streams=count)) for count in (1, 3, 1))
    other = swarm.add_conn(FakeConn(peer(2)))
    assert swarm.best_conn(THEM) is busy
    assert swarm.connectedness(THEM) is Connectedness.CONNECTED
    assert swarm.conns_to_peer(THEM) == [old, busy, new]
    assert set(swarm.conns()) == {old, busy, new, other}
    assert set(swarm.peers()) == {THEM, peer(2)}
    busy.session.has_go_away = True  # its streams go on, and no new one can be opened
    assert swarm.best_conn(THEM) is new
    await busy.close()
    assert swarm.best_conn(THEM) is new
    new.session.is_closed = True
    assert swarm.best_conn(THEM) is old
    await old.close()
    assert swarm.best_conn(THEM) is None, "one that has ended is not given out, even before its callback"
    assert swarm.num_conns == 2
    await swarm.close()
    assert (swarm.num_conns, swarm.conns()) == (0, [])


@looped
async def test_close_peer_closes_only_that_peers_connections() -> None:
    swarm, _ = make_swarm()
    fakes = [FakeConn(THEM), FakeConn(THEM), FakeConn(peer(2))]
    for fake in fakes:
        swarm.add_conn(fake)
    await swarm.close_peer(THEM)
    assert [fake.is_closed for fake in fakes] == [True, True, False]
    assert swarm.conns_to_peer(THEM) == []
    await swarm.close_peer(THEM)
    await swarm.close()


@looped
async def test_a_connection_whose_close_is_cancelled_is_aborted_and_told() -> None:
    log: list[Any] = []
    swarm, _ = make_swarm()
    swarm.notify(Recorder(log))
    fake = FakeConn(THEM)
    fake.close_gate = asyncio.Event()
    conn = swarm.add_conn(fake)
    closing = asyncio.create_task(conn.close(7))
    await eventually(lambda: fake.close_code == 7 and swarm.conns() == [])  # given to nobody while it closes
    assert not closing.done()
    closing.cancel()
    await asyncio.wait([closing])
    assert fake.aborted
    await eventually(lambda: [event for event, _ in log] == ["connected", "disconnected"])
    await swarm.close()


# -- opening streams ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [ConnectionClosed("gone"), TimeoutError("slow"), StreamReset(5, True)],
    ids=lambda e: type(e).__name__,
)
@looped
async def test_a_stream_is_opened_on_the_next_connection_when_one_fails(error: Exception) -> None:
    swarm, _ = make_swarm()
    fakes = [FakeConn(THEM, streams=count) for count in (1, 2, 3)]
    for fake in fakes:
        swarm.add_conn(fake)
    fakes[2].open_error = error
    fakes[1].write_error = error
    stream = await swarm.new_stream(THEM, "/x")
    assert stream.conn is fakes[0]
    assert fakes[1].opened[0].reset_code == codes.STREAM_PROTOCOL_NEGOTIATION_FAILED
    fakes[0].open_error = error
    with pytest.raises(type(error)):
        await swarm.new_stream(THEM, "/x")
    await swarm.close()


@looped
async def test_a_stream_to_nobody_is_an_error() -> None:
    swarm, _ = make_swarm()
    with pytest.raises(ConnectionClosed, match="no open connection"):
        await swarm.new_stream(THEM, "/x")
    conn = swarm.add_conn(FakeConn(THEM))
    with pytest.raises(ValueError, match="no protocol"):
        await conn.new_stream([])
    await swarm.close()


@looped
async def test_a_single_protocol_is_proposed_without_waiting() -> None:
    swarm, _ = make_swarm()
    conn = swarm.add_conn(FakeConn(THEM))
    stream = await conn.new_stream("/x")
    proposal = b"\x13/multistream/1.0.0\n\x03/x\n"
    assert (stream.written, stream.expected) == (proposal, (proposal, "/x"))
    await swarm.close()


@looped
async def test_a_connection_that_opens_no_stream_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NEW_STREAM_TIMEOUT_S", 0.01)

    swarm, _ = make_swarm()
    fake = FakeConn(THEM)
    fake.open_stream = asyncio.Event().wait  # type: ignore[method-assign, assignment]
    conn = swarm.add_conn(fake)
    with pytest.raises(TimeoutError):
        await conn.new_stream("/x")
    await swarm.close()


@looped
async def test_cancelling_a_negotiation_resets_the_stream() -> None:
    swarm, _ = make_swarm()
    fake = FakeConn(THEM)
    conn = swarm.add_conn(fake)
    opening = asyncio.create_task(conn.new_stream(["/x", "/y"]))
    await eventually(lambda: fake.opened and fake.opened[0].written)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    assert fake.opened[0].reset_code == codes.STREAM_PROTOCOL_NEGOTIATION_FAILED
    await swarm.close()


@pytest.mark.parametrize("protocol", ["", "x", "/x\n", "/" + "x" * 255])
def test_a_bad_protocol_id_is_refused(protocol: str) -> None:
    swarm, _ = make_swarm()
    with pytest.raises(ValueError, match="protocol id"):
        swarm.set_stream_handler(protocol, lambda stream: asyncio.sleep(0))
    swarm.set_stream_handler("/" + "x" * 254, lambda stream: asyncio.sleep(0))
    swarm.remove_stream_handler("/never set")
    assert len(swarm.protocols) == 1


# -- the end -----------------------------------------------------------------------------------


@looped
async def test_close_is_idempotent_and_ends_everything() -> None:
    log: list[Any] = []
    swarm, tcp = make_swarm()
    swarm.notify(Recorder(log))
    await swarm.listen(addr(1), addr(2))
    fakes = [FakeConn(peer(number)) for number in range(1, 4)]
    for fake in fakes:
        swarm.add_conn(fake)
    await asyncio.gather(swarm.close(), swarm.close())
    await swarm.close()
    assert all(listener.is_closed for listener in tcp.listeners)
    assert all(fake.close_code == codes.CONN_SHUTDOWN for fake in fakes)
    events = [event for event, _ in log]
    assert sorted(events[5:]) == ["disconnected"] * 3 + ["listen_close"] * 2
    assert swarm.is_closed
    assert asyncio.all_tasks() == {asyncio.current_task()}
    late = FakeConn(THEM)
    with pytest.raises(SwarmClosed):
        swarm.add_conn(late)
    assert late.aborted


def test_close_is_bounded_where_a_connection_does_not_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "SWARM_CLOSE_TIMEOUT_S", 0.01)

    async def main() -> None:
        log: list[Any] = []
        swarm, _ = make_swarm()
        swarm.notify(Recorder(log))
        fake = FakeConn(THEM)
        fake.close_gate = asyncio.Event()
        swarm.add_conn(fake)
        await swarm.close()
        assert fake.aborted
        assert [event for event, _ in log] == ["connected", "disconnected"]

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "connections did not close" in caplog.text


@looped
async def test_a_cancelled_close_goes_on() -> None:
    swarm, _ = make_swarm()
    fake = FakeConn(THEM)
    fake.close_gate = asyncio.Event()
    aborted: list[bool] = []
    fake.add_close_callback(lambda error: aborted.append(fake.aborted))
    swarm.add_conn(fake)
    closing = asyncio.create_task(swarm.close())
    await eventually(lambda: fake.close_code is not None)
    closing.cancel()
    await asyncio.wait([closing])
    fake.close_gate.set()
    await swarm.close()
    assert fake.close_code == codes.CONN_SHUTDOWN
    assert aborted == [False], "it ended in good order"
    assert swarm.num_conns == 0
