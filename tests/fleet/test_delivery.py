"""Messages to a peer of any process: answers, reasons, deadlines, at most once and at least once."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from fleets import ECHO, TAKE, Peer, Yard, until, yard
from hypothesis import given, strategies as st

from harness import TAIL
from p2pcore import IdentityError, LimitExceeded, PeerId, PrivateKey, Stream, codes
from p2pcore.codes import Undelivered
from p2pcore.errors import NotDelivered, RemoteProtocolError
from p2pcore.fleet import BusMessage, Fleet
from p2pcore.fleet.done import Done
from p2pcore.fleet.envelope import Order, answer_of, packed, packed_answer, packed_failure, unpacked
from p2pcore.fleet.hints import marks_of
from p2pcore.limits import (
    FLEET_BATCH_S,
    FLEET_LATE_S,
    FLEET_LEASE_S,
    FLEET_LOOK_S,
    FLEET_MAX_HEAD_BYTES,
    FLEET_MAX_ID_BYTES,
    FLEET_MAX_MESSAGE_BYTES,
    FLEET_REFRESH_S,
    MAX_PROTOCOL_ID_BYTES,
)
from virtual_time import now, virtual

ODD = "/test-odd/1.0.0"
PEER = PrivateKey.generate().peer_id()


async def failure(awaitable: Any) -> NotDelivered:
    try:
        await awaitable
    except NotDelivered as error:
        return error
    raise AssertionError("it was delivered")


def parts(fleet: Fleet) -> Any:
    assert fleet._parts is not None
    return fleet._parts


async def found(made: Yard, *peers: Peer) -> None:
    """Returns when all processes can find the peers."""
    await asyncio.sleep(0.1)
    for peer in peers:
        for fleet in made.fleets:
            assert await fleet.where(peer.id)


# -- answers -----------------------------------------------------------------------------------


@virtual
async def test_a_request_is_answered_from_every_process() -> None:
    async with yard(3) as made:
        peer = await made.peer(1)
        await found(made, peer)
        for fleet in made.fleets:
            assert await fleet.request(peer.id, ECHO, b"hello") == b"echo hello"
            assert await fleet.request(str(peer.id), ECHO, b"") == b"echo "
        assert len(peer.got) == 6


@virtual
async def test_a_send_returns_when_the_handler_has_taken_the_message() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await found(made, peer)
        for fleet in made.fleets:
            await fleet.send(peer.id, TAKE, b"take this")
        assert peer.got == [b"take this"] * 2


@virtual
async def test_a_send_tells_the_handler_that_nothing_more_comes() -> None:
    async with yard(1) as made:
        peer = await made.peer(0)
        await made.fleets[0].send(peer.id, ECHO, b"1", timeout_s=1)  # reads until the end, and answers each
        assert peer.got == [b"1"]


@virtual
async def test_the_longest_message_and_answer_go_through_and_a_longer_message_is_refused() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await found(made, peer)
        longest = bytes(FLEET_MAX_MESSAGE_BYTES)
        answer = await made.fleets[0].request(peer.id, ECHO, longest[:-5], at_least_once_id="x" * 128)
        assert len(answer) == FLEET_MAX_MESSAGE_BYTES
        await made.fleets[0].send(peer.id, TAKE, longest)
        for call in (made.fleets[0].request, made.fleets[0].send):
            with pytest.raises(LimitExceeded):
                await call(peer.id, ECHO, longest + b"1")


@virtual
async def test_a_thousand_requests_at_once_are_answered() -> None:
    async with yard(3) as made:
        peers = [await made.peer(n % 3) for n in range(10)]
        await found(made, *peers)
        answers = await asyncio.gather(
            *(
                made.fleets[n % 3].request(peers[n % 10].id, ECHO, b"%d" % n, timeout_s=30)
                for n in range(1000)
            )
        )
        assert answers == [b"echo %d" % n for n in range(1000)]
        for fleet in made.fleets:
            assert parts(fleet).delivery.num_running == 0
            assert parts(fleet).serving.num_running == 0
            assert parts(fleet).serving.num_bytes == 0
            assert not parts(fleet).serving._of_process
            assert not parts(fleet).serving._tasks


@virtual
async def test_metrics_count_how_messages_ended() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await found(made, peer)
        await made.fleets[0].request(peer.id, ECHO, b"1")
        await failure(made.fleets[0].request(PEER, ECHO, b"1"))
        text = made.hosts[0].metrics.text()
        assert 'p2pcore_fleet_requests_total{outcome="delivered"} 1' in text
        assert 'p2pcore_fleet_requests_total{outcome="not_connected"} 1' in text
        assert 'p2pcore_fleet_served_total{outcome="delivered"} 1' in made.hosts[1].metrics.text()


# -- reasons -----------------------------------------------------------------------------------


@virtual
async def test_a_peer_that_is_nowhere_is_not_connected() -> None:
    async with yard(2) as made:
        began = now()
        error = await failure(made.fleets[0].request(PEER, ECHO, b"1"))
        assert (error.reason, error.may_have_arrived) == (Undelivered.NOT_CONNECTED, False)
        assert error.peer == PEER
        assert str(PEER) in str(error)
        assert now() == began


@virtual
async def test_a_peer_that_does_not_speak_the_protocol_says_so() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await found(made, peer)
        for fleet in made.fleets:
            for call in (fleet.request, fleet.send):
                error = await failure(call(peer.id, "/nobody-has-this/1", b"1"))
                assert (error.reason, error.may_have_arrived) == (Undelivered.NOT_SUPPORTED, False)


ODDITIES: list[tuple[str, Undelivered]] = [
    ("never", Undelivered.TIMEOUT),
    ("reset", Undelivered.REFUSED),
    ("ends", Undelivered.REFUSED),
    ("half", Undelivered.BAD_ANSWER),
    ("too much", Undelivered.BAD_ANSWER),
    ("nonsense", Undelivered.BAD_ANSWER),
    ("leaves", Undelivered.GONE),
]


async def odd(stream: Stream) -> None:
    """Does with a request what its message says."""
    match (await stream.read_msg()).decode():
        case "never":
            await stream.wait_closed()
        case "reset":
            stream.reset(7)
        case "half":
            await stream.write(b"\x05abc")
        case "too much":
            await stream.write(b"\xff\xff\xff\x01")
            await stream.wait_closed()
        case "nonsense":
            await stream.write(b"\xff" * 12)
            await stream.wait_closed()
        case "leaves":
            stream.conn.abort()
        case "late":
            await asyncio.sleep(5)
            await stream.write_msg(b"late")


@pytest.mark.parametrize(("kind", "reason"), ODDITIES, ids=[kind for kind, _ in ODDITIES])
def test_a_peer_that_does_not_answer_well_may_have_got_the_message(kind: str, reason: Undelivered) -> None:
    @virtual
    async def main() -> None:
        async with yard(2) as made:
            for fleet in made.fleets:
                peer = await made.peer(1)
                peer.host.set_stream_handler(ODD, odd)
                await found(made, peer)
                began = now()
                error = await failure(fleet.request(peer.id, ODD, kind.encode(), timeout_s=3))
                assert (error.reason, error.may_have_arrived) == (reason, True)
                assert now() - began <= 3.01  # the timers of streams count milliseconds
                await until(lambda: not parts(made.fleets[1]).serving.num_running)

    main()


@virtual
async def test_an_answer_that_comes_late_is_an_answer_within_the_deadline_only() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        peer.host.set_stream_handler(ODD, odd)
        await found(made, peer)
        assert await made.fleets[0].request(peer.id, ODD, b"late", timeout_s=6) == b"late"
        error = await failure(made.fleets[0].request(peer.id, ODD, b"late", timeout_s=4))
        assert error.reason is Undelivered.TIMEOUT


@virtual
async def test_a_process_that_dies_is_gone_at_once_and_what_it_had_under_way_times_out() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        peer.host.set_stream_handler(ODD, odd)
        await found(made, peer)
        running = asyncio.ensure_future(failure(made.fleets[0].request(peer.id, ODD, b"never", timeout_s=3)))
        await asyncio.sleep(0.5)
        await made.kill(1)
        error = await failure(made.fleets[0].request(peer.id, ECHO, b"1"))
        assert (error.reason, error.may_have_arrived) == (Undelivered.GONE, False)
        assert (await running).may_have_arrived


@virtual
async def test_a_peer_at_two_processes_is_reached_by_the_one_that_is_left() -> None:
    async with yard(3) as made:
        peer = await made.peer(1, 2)
        await found(made, peer)
        await made.kill(1)
        for _ in range(5):
            assert await made.fleets[0].request(peer.id, ECHO, b"1") == b"echo 1"
        assert len(peer.got) == 5


@virtual
async def test_what_may_have_arrived_is_not_sent_again_by_another_process() -> None:
    async with yard(3) as made:
        peer = await made.peer(0, 1)
        got: list[bytes] = []

        async def resets(stream: Stream) -> None:
            got.append(await stream.read_msg())
            stream.reset(7)

        peer.host.set_stream_handler(ODD, resets)
        await found(made, peer)
        for fleet in made.fleets:
            assert (await failure(fleet.request(peer.id, ODD, b"1"))).may_have_arrived
        assert len(got) == 3


@virtual
async def test_a_connection_that_has_just_ended_sends_the_request_elsewhere() -> None:
    async with yard(2) as made:
        peer = await made.peer(0, 1)
        await found(made, peer)
        for conn in made.hosts[0].swarm.conns_to_peer(peer.id):
            conn.abort()
        assert await made.fleets[0].request(peer.id, ECHO, b"1") == b"echo 1"


@virtual
async def test_a_peer_that_drains_here_gets_it_by_another_process() -> None:
    async with yard(2) as made:
        peer = await made.peer(0)
        other = await made.stack.enter_async_context(
            made.network.host(private_key=peer.host.private_key, listen=(), ping=False, identify=False)
        )
        second = Peer(other)
        other.set_stream_handler(ECHO, second.echo)
        await made.connect(second, 1)
        await found(made, peer)

        async def draining(stream: Stream) -> None:
            stream.reset(codes.STREAM_SHUTDOWN)

        peer.host.set_stream_handler(ECHO, draining)
        assert await made.fleets[0].request(peer.id, ECHO, b"1") == b"echo 1"
        assert second.got == [b"1"]


@virtual
async def test_without_the_engine_local_peers_are_reached_and_others_fail_at_once() -> None:
    async with yard(2) as made:
        here, there = await made.peer(0), await made.peer(1)
        there.host.set_stream_handler(ODD, odd)
        await found(made, here, there)
        running = asyncio.ensure_future(failure(made.fleets[0].request(there.id, ODD, b"never")))
        await asyncio.sleep(0.5)
        made.engine.stop()
        began = now()
        assert await made.fleets[0].request(here.id, ECHO, b"1") == b"echo 1"
        error = await failure(made.fleets[0].request(there.id, ECHO, b"1"))
        assert (error.reason, error.may_have_arrived) == (Undelivered.BUS_DOWN, False)
        error = await running
        assert (error.reason, error.may_have_arrived) == (Undelivered.BUS_DOWN, True)
        assert now() == began


@virtual
async def test_a_peer_that_has_moved_is_reached_at_its_new_place() -> None:
    async with yard(3) as made:
        peer = await made.peer(1)
        await found(made, peer)
        assert await made.fleets[0].request(peer.id, ECHO, b"1") == b"echo 1"
        await peer.host.close_peer(made.hosts[1].peer_id)
        await made.connect(peer, 2)
        await asyncio.sleep(0.1)
        assert await made.fleets[0].request(peer.id, ECHO, b"2") == b"echo 2"
        await made.kill(2)
        error = await failure(made.fleets[0].request(peer.id, ECHO, b"3"))
        assert (error.reason, error.may_have_arrived) == (Undelivered.GONE, False)
        assert peer.got == [b"1", b"2"]


async def asked_where(made: Yard, at: int) -> list[PeerId]:
    """The list of the peers whose places are asked of the bus from now on."""
    asked = []
    delivery = parts(made.fleets[at]).delivery
    where = delivery._where
    delivery._where = lambda peer: asked.append(peer) or where(peer)  # type: ignore[func-returns-value]
    return asked


@virtual
async def test_the_first_request_to_a_peer_is_one_request_of_the_bus() -> None:
    async with yard(3) as made:
        peers = [await made.peer(1) for _ in range(5)]
        await asyncio.sleep(2 * FLEET_REFRESH_S)  # until the beats have said it
        asked = await asked_where(made, 0)
        for peer in peers:
            assert await made.fleets[0].request(peer.id, ECHO, b"1") == b"echo 1"
        assert asked == []


@virtual
async def test_a_peer_that_came_this_moment_is_looked_up_once() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await asyncio.sleep(FLEET_BATCH_S + 0.01)
        asked = await asked_where(made, 0)
        for _ in range(2):
            assert await made.fleets[0].request(peer.id, ECHO, b"1") == b"echo 1"
        assert asked == [peer.id]


@virtual
async def test_a_wrong_guess_costs_one_look_and_the_peer_gets_the_message_once() -> None:
    async with yard(3) as made:
        peer = await made.peer(1)
        await asyncio.sleep(2 * FLEET_REFRESH_S)
        parts(made.fleets[0]).hints.note(marks_of([peer.id]), made.fleets[2].process)
        asked = await asked_where(made, 0)
        assert await made.fleets[0].request(peer.id, ECHO, b"1") == b"echo 1"
        assert (asked, peer.got) == ([peer.id], [b"1"])


@virtual
async def test_a_peer_that_has_left_is_guessed_wrong_once() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await asyncio.sleep(2 * FLEET_REFRESH_S)
        await peer.host.close()
        await until(lambda: not made.hosts[1].swarm.num_conns)
        asked = await asked_where(made, 0)
        for _ in range(2):
            error = await failure(made.fleets[0].request(peer.id, ECHO, b"1"))
            assert (error.reason, error.may_have_arrived) == (Undelivered.NOT_CONNECTED, False)
        assert parts(made.fleets[0]).hints.guess(peer.id) is None
        assert asked == [peer.id] * 2


@virtual
async def test_a_process_without_a_lease_is_sent_nothing() -> None:
    async with yard(1) as made:
        sent: list[BusMessage] = []
        await made.buses[0].subscribe("p2pcore.to.gone", sent.append)
        order = Order("a", PEER, ECHO, b"1", True, 60.0)
        error = await failure(parts(made.fleets[0]).delivery._over_bus("gone", order, now() + 60))
        assert (error.reason, error.may_have_arrived) == (Undelivered.GONE, False)
        assert sent == []


@virtual
async def test_a_process_that_has_ended_is_not_guessed() -> None:
    async with yard(3) as made:
        peer = await made.peer(1)
        await asyncio.sleep(2 * FLEET_REFRESH_S)
        await made.kill(1)
        await until(lambda: len(made.fleets[0].processes()) == 2)
        assert parts(made.fleets[0]).hints.guess(peer.id) is None
        error = await failure(made.fleets[0].request(peer.id, ECHO, b"1"))
        assert (error.reason, error.may_have_arrived) == (Undelivered.NOT_CONNECTED, False)


# -- a process that dies with messages under way -----------------------------------------------


@virtual
async def test_what_is_under_way_to_a_killed_process_fails_when_it_is_missed() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        peer.host.set_stream_handler(ODD, odd)
        await found(made, peer)
        running = asyncio.ensure_future(failure(made.fleets[0].request(peer.id, ODD, b"never", timeout_s=60)))
        await asyncio.sleep(1)
        began = now()
        await made.kill(1)
        error = await running
        assert (error.reason, error.may_have_arrived) == (Undelivered.GONE, True)
        assert now() - began <= FLEET_LATE_S + FLEET_LOOK_S
        assert not parts(made.fleets[0]).delivery._waiting


@virtual
async def test_what_is_under_way_to_a_process_that_stands_still_fails_with_its_lease() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await asyncio.sleep(2 * FLEET_REFRESH_S)
        await made.stand_still(1)
        began = now()
        error = await failure(made.fleets[0].request(peer.id, ECHO, b"1", timeout_s=60))
        assert (error.reason, error.may_have_arrived) == (Undelivered.GONE, True)
        assert now() - began <= FLEET_LEASE_S + FLEET_LOOK_S
        error = await failure(made.fleets[0].request(peer.id, ECHO, b"1", timeout_s=60))
        assert (error.reason, error.may_have_arrived) == (Undelivered.NOT_CONNECTED, False)


@virtual
async def test_a_message_with_an_id_goes_elsewhere_when_its_process_stands_still() -> None:
    async with yard(3) as made:
        peer = await made.peer(1)
        await asyncio.sleep(2 * FLEET_REFRESH_S)
        await made.stand_still(1)
        call = made.fleets[0].request(peer.id, ECHO, b"1", timeout_s=60, at_least_once_id="a")
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0.1)
        await made.connect(peer, 2)
        assert await task == b"echo 1"
        assert peer.got == [b"1"]


@virtual
async def test_requests_to_others_go_on_when_a_process_ends() -> None:
    async with yard(3) as made:
        one, other = await made.peer(1), await made.peer(2)
        for peer in (one, other):
            peer.host.set_stream_handler(ODD, odd)
        await found(made, one, other)
        running = asyncio.ensure_future(made.fleets[0].request(other.id, ODD, b"late", timeout_s=60))
        lost = asyncio.ensure_future(failure(made.fleets[0].request(one.id, ODD, b"late", timeout_s=60)))
        await asyncio.sleep(0.1)
        await made.stand_still(1)
        assert (await lost).reason is Undelivered.GONE
        assert await running == b"late"


# -- bounds ------------------------------------------------------------------------------------


@virtual
async def test_too_many_requests_fail_at_once_here_and_there() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        peer.host.set_stream_handler(ODD, odd)
        await found(made, peer)
        serving = parts(made.fleets[1]).serving
        serving._of_process[made.fleets[0].process] = 4096
        error = await failure(made.fleets[0].request(peer.id, ECHO, b"1"))
        assert (error.reason, error.may_have_arrived) == (Undelivered.BUSY, False)
        serving._of_process.clear()
        serving.num_bytes = 64 * 1024 * 1024
        assert (await failure(made.fleets[0].request(peer.id, ECHO, b"1"))).reason is Undelivered.BUSY
        serving.num_bytes = 0
        serving.num_running = 8192
        assert (await failure(made.fleets[0].request(peer.id, ECHO, b"1"))).reason is Undelivered.BUSY
        serving.num_running = 0
        assert await made.fleets[0].request(peer.id, ECHO, b"1") == b"echo 1"
        parts(made.fleets[0]).delivery.num_running = 8192
        error = await failure(made.fleets[0].request(peer.id, ECHO, b"1"))
        assert (error.reason, error.may_have_arrived) == (Undelivered.BUSY, False)
        parts(made.fleets[0]).delivery.num_running = 0


@virtual
async def test_wrong_arguments_are_refused() -> None:
    async with yard(1) as made:
        call = made.fleets[0].request
        for wrong, options in (
            ((PEER, "", b""), {}),
            ((PEER, "/" + "x" * MAX_PROTOCOL_ID_BYTES, b""), {}),
            ((PEER, 7, b""), {}),
            ((PEER, "/\ud800", b""), {}),
            ((PEER, "echo", b""), {}),
            ((PEER, "/a\n/b", b""), {}),
            ((PEER, ECHO, b""), {"at_least_once_id": "\ud800"}),
            ((PEER, ECHO, b""), {"at_least_once_id": 7}),
            ((PEER, ECHO, "text"), {}),
            ((PEER, ECHO, b""), {"timeout_s": 0}),
            ((PEER, ECHO, b""), {"timeout_s": 86_401}),
            ((PEER, ECHO, b""), {"at_least_once_id": ""}),
            ((PEER, ECHO, b""), {"at_least_once_id": "x" * (FLEET_MAX_ID_BYTES + 1)}),
        ):
            with pytest.raises(
                (TypeError, ValueError), match=r"^(protocol|message|timeout_s|at_least_once_id)"
            ):
                await call(*wrong, **options)  # type: ignore[arg-type]
        with pytest.raises(IdentityError):
            await call("nonsense", ECHO, b"")


@virtual
async def test_a_request_that_is_cancelled_at_any_await_leaves_nothing() -> None:
    async with yard(2) as made:
        here, there = await made.peer(0), await made.peer(1)
        await found(made, here, there)
        for peer in (here, there):
            for turns in range(60):
                call = made.fleets[0].request(peer.id, ECHO, b"1", at_least_once_id=f"{peer.id} {turns}")
                task = asyncio.ensure_future(call)
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(1)
        for fleet in made.fleets:
            assert parts(fleet).delivery.num_running == 0
            assert parts(fleet).serving.num_running == 0
            assert not parts(fleet).serving._done._running
        assert not made.engine._requests
        await until(lambda: all(not conn.num_streams for host in made.hosts for conn in host.swarm.conns()))


@virtual
async def test_a_fleet_that_closes_ends_what_it_serves() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        peer.host.set_stream_handler(ODD, odd)
        await found(made, peer)
        running = asyncio.ensure_future(failure(made.fleets[0].request(peer.id, ODD, b"never")))
        await asyncio.sleep(0.1)
        await made.fleets[1].close()
        error = await running
        assert (error.reason, error.may_have_arrived) == (Undelivered.GONE, True)
        error = await failure(made.fleets[0].request(peer.id, ECHO, b"1"))
        assert error.reason is Undelivered.NOT_CONNECTED


@virtual
async def test_failures_keep_no_cycle_alive() -> None:
    async with yard(2) as made:
        gc.collect()
        gc.disable()
        try:
            before = sum(isinstance(each, NotDelivered) for each in gc.get_objects())
            for _ in range(20):
                await failure(made.fleets[0].request(PEER, ECHO, b"1"))
            after = sum(isinstance(each, NotDelivered) for each in gc.get_objects())
            assert after - before <= 1
        finally:
            gc.enable()


# -- at least once -----------------------------------------------------------------------------


@virtual
async def test_a_message_with_an_id_waits_for_a_peer_that_comes_back() -> None:
    async with yard(2) as made:
        peer = await made.peer()
        call = made.fleets[0].request(peer.id, ECHO, b"1", timeout_s=10, at_least_once_id="a")
        task = asyncio.ensure_future(call)
        await asyncio.sleep(3)
        await made.connect(peer, 1)
        assert await task == b"echo 1"
        assert peer.got == [b"1"]


@virtual
async def test_a_message_with_an_id_survives_the_engine_and_fails_at_its_deadline() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await found(made, peer)
        made.engine.stop()
        began = now()
        call = made.fleets[0].request(peer.id, ECHO, b"1", timeout_s=10, at_least_once_id="a")
        task = asyncio.ensure_future(call)
        await asyncio.sleep(5)
        made.engine.start()
        assert await task == b"echo 1"
        error = await failure(made.fleets[0].send(PEER, ECHO, b"1", timeout_s=2, at_least_once_id="b"))
        assert error.reason is Undelivered.NOT_CONNECTED
        assert now() - began <= 10


@virtual
async def test_an_answer_that_was_lost_is_given_again_and_the_peer_gets_the_message_once() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await found(made, peer)

        async def slow(stream: Stream) -> None:
            peer.got.append(await stream.read_msg())
            await asyncio.sleep(3)  # longer than one attempt
            await stream.write_msg(b"done")

        peer.host.set_stream_handler(ODD, slow)
        for fleet in made.fleets:
            for _ in range(2):
                call = fleet.request(peer.id, ODD, b"1", timeout_s=9, at_least_once_id="a")
                assert await call == b"done"
        assert peer.got == [b"1"]


@virtual
async def test_a_message_with_an_id_is_sent_again_when_its_process_dies_without_a_word() -> None:
    async with yard(3) as made:
        peer = await made.peer(1)
        peer.host.set_stream_handler(ODD, odd)
        await found(made, peer)
        call = made.fleets[0].request(peer.id, ODD, b"late", timeout_s=20, at_least_once_id="a")
        task = asyncio.ensure_future(call)
        await asyncio.sleep(1)
        await made.connect(peer, 2)
        await made.kill(1)
        assert await task == b"late"
        assert now() < 15


@virtual
async def test_a_message_with_an_id_is_given_up_where_the_peer_will_not_take_it() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await found(made, peer)
        began = now()
        call = made.fleets[0].send(peer.id, "/nobody-has-this/1", b"1", at_least_once_id="a")
        assert (await failure(call)).reason is Undelivered.NOT_SUPPORTED
        assert now() == began


@virtual
async def test_done_runs_one_work_at_a_time_and_forgets_the_oldest() -> None:
    done = Done(most=2, most_bytes=10)
    runs: list[str] = []

    async def work(name: str, answer: bytes = b"123") -> bytes:
        runs.append(name)
        await asyncio.sleep(1)
        return answer

    both = await asyncio.gather(done.once("a", lambda: work("a"), 5), done.once("a", lambda: work("a"), 5))
    assert (both, runs) == ([b"123", b"123"], ["a"])

    async def fails() -> bytes:
        runs.append("fails")
        raise OSError

    for _ in range(2):
        with pytest.raises(OSError):
            await done.once("f", fails, 5)
    assert runs == ["a", "fails", "fails"]
    for name in ("b", "c"):
        await done.once(name, lambda name=name: work(name), 5)  # type: ignore[misc]
    assert (len(done), done.num_bytes) == (2, 6)
    await done.once("big", lambda: work("big", bytes(11)), 5)
    assert (len(done), done.num_bytes) == (0, 0)
    assert not done._running


@virtual
async def test_done_lets_the_next_one_run_what_was_cancelled() -> None:
    done = Done()
    never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def wait() -> bytes:
        return await never

    async def now_() -> bytes:
        return b"2"

    first = asyncio.ensure_future(done.once("a", wait, 5))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(done.once("a", now_, 5))
    third = asyncio.ensure_future(done.once("a", now_, 5))
    await asyncio.sleep(0)
    third.cancel()
    first.cancel()
    assert await second == b"2"
    assert not done._running


# -- the bytes ---------------------------------------------------------------------------------


def test_an_order_survives_its_bytes() -> None:
    order = Order("abc", PEER, "/p/1", b"message" + TAIL, True, 1.5, "id-1")
    assert unpacked(packed(order, order.left_s)) == order
    assert unpacked(packed(Order("a", PEER, "/p", b"", False, 0.0), 0.0)).key == ""


def test_the_head_of_an_order_has_its_bound() -> None:
    longest = Order(
        "x" * 255, PEER, "x" * MAX_PROTOCOL_ID_BYTES, b"", True, 86_400.0, "x" * FLEET_MAX_ID_BYTES
    )
    assert len(packed(longest, longest.left_s)) <= FLEET_MAX_HEAD_BYTES


@given(st.binary(max_size=200))
def test_bytes_that_are_no_order_are_refused(data: bytes) -> None:
    for mutated in (data, b"\x01" + data, packed(Order("a", PEER, "/p", b"", True, 1.0), 1.0)[: len(data)]):
        try:
            unpacked(mutated)
        except RemoteProtocolError:
            pass


@given(st.binary(max_size=50))
def test_bytes_that_are_no_answer_are_refused(data: bytes) -> None:
    try:
        answer_of(PEER, data)
    except (RemoteProtocolError, NotDelivered):
        pass


def test_answers_and_failures_survive_their_bytes() -> None:
    assert answer_of(PEER, packed_answer(b"yes")) == b"yes"
    for reason in Undelivered:
        error = NotDelivered(PEER, reason, may_have_arrived=True, detail="x" * 1000)
        with pytest.raises(NotDelivered) as caught:
            answer_of(PEER, packed_failure(error))
        assert caught.value.reason is reason
        assert caught.value.may_have_arrived
        assert caught.value.detail == "x" * 200


@virtual
async def test_nonsense_on_the_bus_is_survived() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await found(made, peer)
        to = f"p2pcore.to.{made.fleets[1].process}"
        await made.buses[0].publish(to, b"nonsense")
        with pytest.raises(TimeoutError):
            await made.buses[0].request(to, b"nonsense", timeout_s=1)
        assert await made.fleets[0].request(peer.id, ECHO, b"1") == b"echo 1"
