"""What connections of one loop share: one state a loop, one flush an iteration, one timer for all deadlines.

Comes in: loops and layers. Goes out: the counts a monitor sees.
"""

from __future__ import annotations

import asyncio
import gc
import weakref

import uvloop

from _fast.chains import PING, SYN, Frame, RawYamux, frame, session_pair, with_limits
from harness import looped, settle
from p2pcore import limits
from p2pcore._fast.loop.buffer import Block, BlockPool
from p2pcore._fast.loop.loop_state import LoopState, loop_state


def test_each_loop_has_one_state_and_takes_it_along() -> None:
    loop, other = uvloop.new_event_loop(), asyncio.new_event_loop()
    assert loop_state(loop) is loop_state(loop)
    assert loop_state(other) is not loop_state(loop)
    assert loop_state(loop).loop is loop
    assert isinstance(loop_state(other), LoopState)
    for each in (loop, other):
        each.close()
    gone = weakref.ref(other)
    del loop, other, each
    gc.collect()
    assert gone() is None


@looped
async def test_what_all_connections_write_in_one_iteration_leaves_once_each() -> None:
    peers = [RawYamux() for _ in range(5)]
    for peer in peers:
        for value in range(3):
            peer.deliver(frame(PING, SYN, 0, value))
        assert peer.sent() == b""
    await asyncio.sleep(0)
    for peer in peers:
        assert peer.sent() == b"".join(bytes(Frame(PING, 2, 0, value)) for value in range(3))


@looped
async def test_a_flush_that_writes_again_is_flushed_again() -> None:
    client, server = await session_pair()
    pings = [asyncio.ensure_future(client.ping()) for _ in range(3)]
    assert all(rtt > 0 for rtt in await asyncio.gather(*pings, server.ping()))
    await client.close()
    await server.close()


def test_one_timer_serves_all_deadlines_and_stops_with_the_last() -> None:
    out = with_limits(
        """
        from p2pcore._fast.loop.loop_state import loop_state
        import gc
        peers = [RawYamux(keepalive_s=1000) for _ in range(20)]
        state = loop_state(asyncio.get_running_loop())
        timers = [o for o in gc.get_objects() if type(o).__name__ == "TimerHandle" and "_look" in repr(o)]
        print(state.num_watched, len(timers))
        for peer in peers:
            peer.session.abort()
        await settle()
        print(state.num_watched)
        """
    )
    assert out == "20 1\n0\n"


@looped
async def test_the_pool_keeps_a_bounded_number_of_free_blocks() -> None:
    state = loop_state(asyncio.get_running_loop())
    peers = [RawYamux() for _ in range(limits.MAX_SPILL_BUFFERS + 20)]
    pings = [peer.session.ping() for peer in peers]
    await settle()
    assert len(pings) == len(peers)
    assert state.num_free_records == limits.MAX_SPILL_BUFFERS


def test_blocks_are_writable_buffers_of_a_positive_size() -> None:
    block = Block(16)
    with memoryview(block) as view:
        assert (view.nbytes, view.readonly) == (16, False)
        view[:] = bytes(range(16))
        assert bytes(block) == bytes(range(16))
    assert block.size == 16
    assert BlockPool(16, 2).num_free == 0
    for size in (0, -1):
        try:
            Block(size)
        except ValueError:
            continue
        raise AssertionError(size)


SPINNING = {"SPIN_S": 1000, "MAX_SPIN_S": 1000, "QUICK_ANSWER_S": 1000}
ANSWERED = """
        from p2pcore._fast.loop.loop_state import loop_state
        state = loop_state(asyncio.get_running_loop())
        cable = Cable()
        async def answered(times):
            for _ in range(times):
                cable.mailbox.write(b"question")
                cable.deliver(b"answer")
"""


def test_a_loop_spins_only_for_the_answer_to_a_short_message_and_after_enough_quick_ones() -> None:
    out = with_limits(
        ANSWERED
        + """
        await answered(limits.SPIN_AFTER_ANSWERS - 1)
        cable.mailbox.write(b"question")
        print(state.is_spinning)
        cable.deliver(b"answer")
        cable.mailbox.write(b"question")
        print(state.is_spinning)
        await settle()
        print(state.is_spinning)
        cable.deliver(b"answer")
        print(state.is_spinning)
        cable.mailbox.write(bytes(limits.SPIN_MESSAGE_BYTES + 1))
        print(state.is_spinning)
        """,
        **SPINNING,
    )
    assert out.split() == ["False", "True", "True", "False", "False"]


def test_an_answer_that_does_not_come_in_time_ends_spinning_until_enough_have_been_quick_again() -> None:
    out = with_limits(
        ANSWERED
        + """
        await answered(limits.SPIN_AFTER_ANSWERS)
        cable.mailbox.write(b"question")
        await eventually(lambda: not state.is_spinning)
        cable.mailbox.write(b"question")
        print(state.is_spinning)
        cable.deliver(b"answer")
        await answered(limits.SPIN_AFTER_ANSWERS)
        cable.mailbox.write(b"question")
        print(state.is_spinning)
        """,
        **SPINNING | {"SPIN_S": 0.2},
    )
    assert out.split() == ["False", "True"]


def test_long_and_slow_answers_are_no_reason_to_spin() -> None:
    out = with_limits(
        ANSWERED
        + """
        await answered(limits.SPIN_AFTER_ANSWERS)
        cable.mailbox.write(b"question")
        cable.deliver(bytes(limits.SPIN_MESSAGE_BYTES + 1))
        cable.mailbox.write(b"question")
        print(state.is_spinning)
        """,
        **SPINNING,
    )
    slow = with_limits(
        ANSWERED
        + """
        await answered(limits.SPIN_AFTER_ANSWERS)
        cable.mailbox.write(b"question")
        print(state.is_spinning)
        """,
        **SPINNING | {"QUICK_ANSWER_S": 0},
    )
    assert (out + slow).split() == ["False", "False"]


def test_spinning_is_off_at_zero_and_bounded() -> None:
    out = with_limits(
        ANSWERED
        + """
        state.spin_s = 0
        await answered(2 * limits.SPIN_AFTER_ANSWERS)
        cable.mailbox.write(b"question")
        print(state.is_spinning, state.spin_s)
        for value in (-1, limits.MAX_SPIN_S * 2, float("nan")):
            try:
                state.spin_s = value
            except ValueError:
                print("refused")
        """,
        **SPINNING,
    )
    assert out.split() == ["False", "0.0", "refused", "refused", "refused"]


@looped
async def test_a_loop_that_spins_still_runs_everything_else() -> None:
    state = loop_state(asyncio.get_running_loop())
    state.spin_s = limits.MAX_SPIN_S
    client, server = await session_pair()
    for _ in range(4 * limits.SPIN_AFTER_ANSWERS):
        await client.ping()
    ran: list[int] = []
    for i in range(3):
        asyncio.get_running_loop().call_soon(ran.append, i)
    await client.ping()
    assert ran == [0, 1, 2]
    await client.close()
    await server.close()
