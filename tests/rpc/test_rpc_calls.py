"""Calls between two hosts: answers, errors, deadlines, cancellation, limits, retries, streams of answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rpc_hosts import COUNT, ECHO, LENGTH, NAME, NUMBER, TEXT, WAIT, shop

from harness import eventually, looped, seconds, settle
from p2pcore import LimitExceeded, Stream, StreamReset, codes, rpc
from p2pcore.codes import RPC_RESET_BASE


async def error_of(awaitable: Any) -> rpc.RpcError:
    with pytest.raises(rpc.RpcError) as caught:
        await awaitable
    return caught.value


# -- answers -----------------------------------------------------------------------------------


@looped
async def test_a_call_takes_and_returns_the_types_of_its_method() -> None:
    async with shop() as made:
        assert await made.client.call(LENGTH, "four") == 4
        assert made.service.counts == {None: 1}


@looped
async def test_messages_of_every_size_arrive() -> None:
    async with shop() as made:
        for size in (0, 1, 16 * 1024, 16 * 1024 + 1, 300_000, 4 * 1024 * 1024):
            data = bytes(range(256)) * (size // 256) + bytes(size % 256)
            assert await made.client.call(ECHO, data) == data


@looped
async def test_calls_one_after_another_use_one_stream() -> None:
    async with shop() as made:
        for _ in range(20):
            await made.client.call(ECHO, b"again")
        assert made.dialer.swarm.conns()[0].num_streams == 1
        assert made.server.swarm.num_handlers_running == 1


@looped
async def test_a_thousand_calls_at_once_are_answered() -> None:
    async with shop() as made:
        requests = [str(i) for i in range(1000)]
        assert await asyncio.gather(*(made.client.call(LENGTH, each) for each in requests)) == [
            len(each) for each in requests
        ]
        assert made.client._pool.num_open <= 100
        assert made.service.counts == {None: 1000}


@looped
async def test_a_thousand_slow_calls_at_once_wait_for_their_turn_and_are_answered() -> None:
    async with shop(client={"max_streams": 200}, service={"bounds": rpc.Bounds(running=50)}) as made:
        calls = [asyncio.create_task(made.client.call(WAIT, str(i))) for i in range(1000)]
        most = 0
        while not all(call.done() for call in calls):
            await settle()
            most = max(most, made.service.num_running)
            for gate in made.gates.values():
                gate.set()
        assert [await call for call in calls] == [f"{i} is done" for i in range(1000)]
        assert most == 50
        assert made.client._pool.num_waiting == made.service.num_queued == made.service.num_running == 0


# -- errors ------------------------------------------------------------------------------------


@looped
async def test_an_rpc_error_of_a_method_reaches_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    async with shop() as made:
        refuses = rpc.Method("refuses", TEXT, TEXT)

        @made.service.method(refuses)
        async def refuse(request: str, call: rpc.Call) -> str:
            raise rpc.RpcError(rpc.Code.NOT_FOUND, f"no {request}")

        error = await error_of(made.client.call(refuses, "tea"))
        assert (error.code, error.message) == (rpc.Code.NOT_FOUND, "no tea")
        assert str(error) == "NOT_FOUND: no tea"
        assert made.service.counts == {rpc.Code.NOT_FOUND: 1}
        assert await made.client.call(LENGTH, "the stream goes on") == 18
        assert made.client._pool.num_open == 1
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@looped
async def test_what_else_a_method_raises_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with shop() as made:
        breaks = rpc.Method("breaks", TEXT, TEXT)
        streams = rpc.StreamMethod("streams", TEXT, TEXT)

        @made.service.method(breaks)
        async def fail(request: str, call: rpc.Call) -> str:
            await asyncio.sleep(0)
            raise ConnectionError("the password is 1234")

        @made.service.method(streams)
        async def fail_late(request: str, call: rpc.Call) -> AsyncIterator[str]:
            yield "one"
            raise ConnectionError("the password is 1234")

        error = await error_of(made.client.call(breaks, ""))
        assert (error.code, error.message) == (rpc.Code.INTERNAL, "the method failed")
        async with made.client.stream(streams, "") as items:
            assert await anext(items) == "one"
            error = await error_of(anext(items))
        assert (error.code, error.message) == (rpc.Code.INTERNAL, "the method failed")
    logged = [each for each in caplog.records if each.name == "p2pcore.rpc.service"]
    assert ["the password" in str(each.exc_info) for each in logged] == [True, True]
    assert "breaks" in logged[0].getMessage()


@looped
async def test_a_stream_method_that_fails_before_its_generator_exists_has_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing = rpc.StreamMethod("failing", rpc.BYTES, rpc.BYTES)
    async with shop() as s:

        @s.service.method(failing)
        def make(request: bytes, call: rpc.Call) -> Any:
            raise ValueError("secret")

        with pytest.raises(rpc.RpcError, match="the method failed") as caught:
            async for _ in s.client.stream(failing, b""):
                pass
        assert caught.value.code is codes.RpcCode.INTERNAL
        assert s.service.counts[codes.RpcCode.INTERNAL] == 1
        assert "method failing raised" in caplog.text


def test_a_function_of_the_other_kind_is_refused_when_it_is_given() -> None:
    service = rpc.Service("/kinds/1")

    async def one(request: bytes, call: rpc.Call) -> bytes:
        return b""

    async def many(request: bytes, call: rpc.Call) -> Any:
        yield b""

    with pytest.raises(TypeError, match="'m' yields; a Method has one answer, use a StreamMethod"):
        service.method(rpc.Method("m", rpc.BYTES, rpc.BYTES))(many)
    with pytest.raises(TypeError, match="'s' never yields; it must be an async generator"):
        service.method(rpc.StreamMethod("s", rpc.BYTES, rpc.BYTES))(one)  # type: ignore[arg-type]


@looped
async def test_a_codec_that_fails_is_a_wrong_request_or_a_broken_service() -> None:
    async with shop() as made:
        text_to_length = rpc.Method("length", rpc.BYTES, NUMBER)
        error = await error_of(made.client.call(text_to_length, b"\xff"))
        assert error.code is rpc.Code.INVALID_ARGUMENT
        answers_text = rpc.Method("echo", rpc.BYTES, NUMBER)
        error = await error_of(made.client.call(answers_text, b"no number"))
        assert error.code is rpc.Code.INTERNAL
        assert "echo" in error.message
        returns_wrong = rpc.Method("wrong", TEXT, TEXT)
        made.service.method(returns_wrong)(lambda request, call: asyncio.sleep(0, 7))  # type: ignore[arg-type]
        assert (await error_of(made.client.call(returns_wrong, ""))).code is rpc.Code.INTERNAL
        with pytest.raises(TypeError):  # the caller's own mistake is the caller's own error
            await made.client.call(LENGTH, 7)  # type: ignore[arg-type]
        assert await made.client.call(LENGTH, "and on") == 6


@looped
async def test_a_method_or_a_service_that_is_not_there_is_unimplemented() -> None:
    async with shop() as made:
        error = await error_of(made.client.call(rpc.Method("unknown", TEXT, TEXT), ""))
        assert (error.code, error.message) == (
            rpc.Code.UNIMPLEMENTED,
            "/shop/1.0.0 has no method 'unknown'",
        )
        async with rpc.Client(made.dialer, made.server.peer_id, "/other/1.0.0") as other:
            assert (await error_of(other.call(ECHO, b""))).code is rpc.Code.UNIMPLEMENTED


@looped
async def test_a_method_of_the_other_kind_is_a_typed_error_and_harms_no_later_call() -> None:
    async with shop() as made:
        one_answer = rpc.Method("count", NUMBER, NUMBER)
        assert (await error_of(made.client.call(one_answer, 3))).code is rpc.Code.INTERNAL
        many = rpc.StreamMethod("length", TEXT, NUMBER)
        async with made.client.stream(many, "x") as items:
            assert (await error_of(anext(items))).code is rpc.Code.INTERNAL
        assert await made.client.call(LENGTH, "and on") == 6


@looped
async def test_a_peer_that_cannot_be_reached_is_unavailable_and_dialled_once_for_all_that_wait() -> None:
    async with shop() as made:
        await made.server.close()
        dials = 0
        connect = made.dialer.connect

        class Counting:
            async def connect(self, target: Any) -> Any:
                nonlocal dials
                dials += 1
                await settle()  # else a refused dial is over before the others have begun
                return await connect(target)

        async with rpc.Client(Counting(), "/ip4/127.0.0.1/tcp/1", NAME) as client:
            errors = await asyncio.gather(*(error_of(client.call(ECHO, b"")) for _ in range(20)))
            assert {each.code for each in errors} == {rpc.Code.UNAVAILABLE}
            assert all(isinstance(each, ConnectionError) for each in errors)
            assert dials == 1
            await error_of(client.call(ECHO, b""))
            assert dials == 2


# -- deadlines and cancellation ----------------------------------------------------------------


@looped
async def test_a_deadline_travels_as_the_time_that_is_left() -> None:
    async with shop() as made:
        for timeout_s in (50.0, None):
            call = asyncio.create_task(made.client.call(WAIT, "a", timeout_s=timeout_s))
            await eventually(lambda: made.begun)
            made.gates["a"].set()
            await call
        first, second = made.lefts
        assert first is not None
        assert 0 < first <= 50.001
        assert second is None


@looped
async def test_a_deadline_ends_the_call_here_and_the_method_there() -> None:
    async with shop() as made:
        await made.client.call(ECHO, b"")  # connects
        error = await error_of(made.client.call(WAIT, "a", timeout_s=seconds(0.2)))
        assert error.code is rpc.Code.DEADLINE_EXCEEDED
        assert isinstance(error, TimeoutError)
        await eventually(lambda: made.cancelled == ["a"])
        await eventually(lambda: made.service.num_running == 0)
        assert await made.client.call(LENGTH, "and on") == 6


@looped
async def test_a_method_is_cancelled_at_its_deadline_even_if_the_caller_is_silent() -> None:
    async with shop() as made:
        stream = await made.dialer.new_stream(made.server.addrs_with_peer[0], made.service.protocol)
        await stream.write(bytes.fromhex("00 04 00000032 00000001 77616974 61"))  # wait, 50 ms, "a"
        head = await stream.read_exactly(6)
        assert head[0] == 3
        assert head[5] == rpc.Code.DEADLINE_EXCEEDED
        assert made.cancelled == ["a"]
        assert made.service.counts == {rpc.Code.DEADLINE_EXCEEDED: 1}
        await stream.read(4096)
        await stream.write(bytes.fromhex("00 06 00000000 00000001 6c656e677468 61"))  # length of "a"
        assert await stream.read_exactly(6) == bytes.fromhex("00 00000001 31")
        await stream.close()


@looped
async def test_a_deadline_of_zero_fails_at_once_and_sends_nothing() -> None:
    async with shop() as made:
        error = await error_of(made.client.call(ECHO, b"", timeout_s=0))
        assert error.code is rpc.Code.DEADLINE_EXCEEDED
        assert made.dialer.swarm.num_conns == 0
        await made.client.call(ECHO, b"")
        await error_of(made.client.call(ECHO, b"", timeout_s=0))
        async with made.client.stream(COUNT, 1, timeout_s=0) as items:
            assert (await error_of(anext(items))).code is rpc.Code.DEADLINE_EXCEEDED
        assert made.service.counts == {None: 1}
        assert made.client._pool.num_open == 1, "the stream was not needed, and stays"


@looped
async def test_a_call_that_waits_past_its_deadline_is_dropped_unrun() -> None:
    bounds = rpc.Bounds(running=1)
    async with shop(service={"bounds": bounds}) as made:
        first = asyncio.create_task(made.client.call(WAIT, "first"))
        await eventually(lambda: made.begun)
        error = await error_of(made.client.call(WAIT, "late", timeout_s=0.05))
        assert error.code is rpc.Code.DEADLINE_EXCEEDED
        await eventually(lambda: made.service.num_queued == 0)
        made.gates["first"].set()
        await first
        assert await made.client.call(LENGTH, "on") == 2
        assert made.begun == ["first"]


WAIT_50_MS = bytes.fromhex("00 04 00000032 00000001 77616974")
"""The request `wait` with 50 ms left, but for its body of one byte."""


@looped
async def test_a_silent_caller_that_waits_to_run_hears_of_its_deadline() -> None:
    async with shop(service={"bounds": rpc.Bounds(running=1)}) as made:
        first = asyncio.create_task(made.client.call(WAIT, "first"))
        await eventually(lambda: made.begun)
        stream = await made.dialer.new_stream(made.server.addrs_with_peer[0], made.service.protocol)
        await stream.write(WAIT_50_MS + b"a")
        assert (await stream.read_exactly(6))[::5] == bytes((3, rpc.Code.DEADLINE_EXCEEDED))
        assert made.service.num_queued == 0
        made.gates["first"].set()
        await first
        assert made.begun == ["first"]


@looped
async def test_a_request_whose_last_byte_comes_after_its_deadline_does_not_run() -> None:
    async with shop() as made:
        stream = await made.dialer.new_stream(made.server.addrs_with_peer[0], made.service.protocol)
        await stream.write(WAIT_50_MS)
        await eventually(lambda: made.server.swarm.num_handlers_running)
        late = asyncio.get_running_loop().time() + seconds(0.1)
        await eventually(lambda: asyncio.get_running_loop().time() > late)
        await stream.write(b"a")
        assert (await stream.read_exactly(6))[::5] == bytes((3, rpc.Code.DEADLINE_EXCEEDED))
        assert made.begun == []


@looped
async def test_a_call_waits_for_a_stream_no_longer_than_its_deadline() -> None:
    async with shop(client={"max_streams": 1}) as made:
        first = asyncio.create_task(made.client.call(WAIT, "first"))
        await eventually(lambda: made.begun)
        error = await error_of(made.client.call(WAIT, "late", timeout_s=0.05))
        assert error.code is rpc.Code.DEADLINE_EXCEEDED
        assert made.client._pool.num_waiting == 0
        made.gates["first"].set()
        await first
        assert made.begun == ["first"]


@looped
async def test_a_cancelled_call_cancels_the_method() -> None:
    async with shop() as made:
        call = asyncio.create_task(made.client.call(WAIT, "a"))
        await eventually(lambda: made.begun)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await eventually(lambda: made.cancelled == ["a"])
        assert made.service.counts == {rpc.Code.CANCELLED: 1}
        assert await made.client.call(LENGTH, "and on") == 6


@looped
async def test_a_cancelled_call_that_waits_to_run_never_runs() -> None:
    async with shop(service={"bounds": rpc.Bounds(running=1)}) as made:
        first = asyncio.create_task(made.client.call(WAIT, "first"))
        await eventually(lambda: made.begun)
        second = asyncio.create_task(made.client.call(WAIT, "second"))
        await eventually(lambda: made.service.num_queued)
        second.cancel()
        await eventually(lambda: made.service.num_queued == 0)
        made.gates["first"].set()
        await first
        await made.client.call(LENGTH, "on")
        assert made.begun == ["first"]


@looped
async def test_a_client_that_is_gone_cancels_its_methods() -> None:
    async with shop() as made:
        call = asyncio.create_task(made.client.call(WAIT, "a", timeout_s=None))
        await eventually(lambda: made.begun)
        made.dialer.swarm.conns()[0].abort()
        assert (await error_of(call)).code is rpc.Code.UNAVAILABLE
        await eventually(lambda: made.cancelled == ["a"])
        await eventually(lambda: made.service.num_running == 0)


# -- limits ------------------------------------------------------------------------------------


@looped
async def test_overload_is_answered_at_once() -> None:
    async with shop(service={"bounds": rpc.Bounds(running=1, queued=1)}) as made:
        calls = [asyncio.create_task(made.client.call(WAIT, str(i))) for i in range(2)]
        await eventually(lambda: made.service.num_queued == 1)
        error = await error_of(made.client.call(WAIT, "too many"))
        assert error.code is rpc.Code.RESOURCE_EXHAUSTED
        assert "too many calls" in error.message
        for i in range(2):
            await eventually(lambda i=i: str(i) in made.gates)
            made.gates[str(i)].set()
        assert await asyncio.gather(*calls) == ["0 is done", "1 is done"]
        assert made.begun == ["0", "1"]


@looped
async def test_one_peer_at_its_bound_leaves_places_for_others() -> None:
    bounds = rpc.Bounds(running_per_peer=2, queued_per_peer=0)
    async with shop(service={"bounds": bounds}) as made, shop() as other:
        calls = [asyncio.create_task(made.client.call(WAIT, str(i))) for i in range(2)]
        await eventually(lambda: made.service.num_running == 2)
        assert (await error_of(made.client.call(ECHO, b""))).code is rpc.Code.RESOURCE_EXHAUSTED
        async with rpc.Client(other.dialer, made.server.addrs_with_peer[0], NAME) as second:
            assert await second.call(ECHO, b"another peer") == b"another peer"
        for gate in made.gates.values():
            gate.set()
        await asyncio.gather(*calls)


@looped
async def test_messages_that_are_too_large_name_both_numbers_whichever_side_refuses() -> None:
    async with shop(client={"max_request_bytes": 2000}) as made:
        error = await error_of(made.client.call(ECHO, bytes(2001)))
        assert error.code is rpc.Code.RESOURCE_EXHAUSTED
        assert isinstance(error.__cause__, LimitExceeded)
        assert (error.__cause__.used, error.__cause__.maximum) == (2001, 2000)
        assert made.dialer.swarm.num_conns == 0, "it was not sent"
    async with shop(service={"max_request_bytes": 2000}) as made:
        for size in (2001, 3_000_000):
            error = await error_of(made.client.call(ECHO, bytes(size)))
            assert error.code is rpc.Code.RESOURCE_EXHAUSTED
            assert error.message == f"a request of {size} bytes; the service takes at most 2000"
        assert await made.client.call(ECHO, bytes(2000)) == bytes(2000)
    async with shop(client={"max_answer_bytes": 2000}) as made:
        error = await error_of(made.client.call(ECHO, bytes(2001)))
        assert error.code is rpc.Code.RESOURCE_EXHAUSTED
        assert isinstance(error.__cause__, LimitExceeded)
        assert (error.__cause__.used, error.__cause__.maximum) == (2001, 2000)
        assert await made.client.call(ECHO, bytes(2000)) == bytes(2000)
    async with shop(service={"max_answer_bytes": 2000}) as made:
        error = await error_of(made.client.call(ECHO, bytes(2001)))
        assert error.code is rpc.Code.RESOURCE_EXHAUSTED
        assert error.message == "an answer of 2001 bytes; the service sends at most 2000"


# -- retries -----------------------------------------------------------------------------------


def failing(made: Any, failures: int, code: rpc.Code = rpc.Code.UNAVAILABLE) -> tuple[Any, list[int]]:
    """A method that fails `failures` times, and its attempts."""
    method = rpc.Method("fails", TEXT, TEXT)
    attempts: list[int] = []

    @made.service.method(method)
    async def fails(request: str, call: rpc.Call) -> str:
        attempts.append(len(attempts) + 1)
        if len(attempts) <= failures:
            raise rpc.RpcError(code, "not now")
        return "now"

    return method, attempts


@looped
async def test_a_call_is_made_once_unless_its_caller_says_that_it_may_run_again() -> None:
    async with shop() as made:
        method, attempts = failing(made, 1)
        assert (await error_of(made.client.call(method, ""))).code is rpc.Code.UNAVAILABLE
        assert attempts == [1]


@looped
async def test_a_call_that_may_run_again_does_until_it_succeeds() -> None:
    async with shop() as made:
        method, attempts = failing(made, 2)
        assert await made.client.call(method, "", retry=rpc.Retry(pause_s=0)) == "now"
        assert attempts == [1, 2, 3]


@looped
async def test_retries_end_with_the_attempts_the_codes_and_the_deadline() -> None:
    async with shop() as made:
        method, attempts = failing(made, 100)
        await error_of(made.client.call(method, "", retry=rpc.Retry(attempts=4, pause_s=0)))
        assert len(attempts) == 4
        await error_of(made.client.call(method, "", retry=rpc.Retry(codes=frozenset({rpc.Code.ABORTED}))))
        assert len(attempts) == 5
        long = rpc.Retry(pause_s=1000, most_pause_s=1000, draw=lambda: 1.0)
        error = await error_of(made.client.call(method, "", retry=long, timeout_s=100))
        assert error.code is rpc.Code.UNAVAILABLE, "what failed is told, not that no time was left for more"
        assert len(attempts) == 6


def test_pauses_double_up_to_a_bound_and_are_random() -> None:
    error = rpc.RpcUnavailable(rpc.Code.UNAVAILABLE)
    whole = rpc.Retry(attempts=6, pause_s=0.1, most_pause_s=0.5, draw=lambda: 1.0)
    assert [whole.pause(i, error) for i in range(1, 7)] == [0.1, 0.2, 0.4, 0.5, 0.5, None]
    pauses = {rpc.Retry().pause(1, error) for _ in range(20)}
    assert len(pauses) > 1
    assert all(each is not None and 0 <= each <= 0.05 for each in pauses)


# -- streams of answers ------------------------------------------------------------------------


@looped
async def test_answers_come_one_after_another_and_the_stream_is_used_again() -> None:
    async with shop() as made:
        for most in (0, 1, 1000):
            async with made.client.stream(COUNT, most) as items:
                assert [each async for each in items] == list(range(most))
        assert await made.client.call(LENGTH, "on") == 2
        assert made.client._pool.num_open == 1


@looped
async def test_a_reader_that_stops_stops_the_method_and_one_that_is_slow_slows_it() -> None:
    async with shop() as made:
        big = rpc.StreamMethod("big", NUMBER, rpc.BYTES)

        @made.service.method(big)
        async def big_items(most: int, call: rpc.Call) -> AsyncIterator[bytes]:
            async for i in made.count(most, call):
                yield bytes(64 * 1024) + bytes([i % 256])

        async with made.client.stream(big, 10_000) as items:
            assert (await anext(items))[-1] == 0
            await settle(50)
            assert len(made.made) < 40, "a window of 256 KiB, and what the sockets take"
            assert (await anext(items))[-1] == 1
        await eventually(lambda: made.service.num_running == 0)
        assert len(made.made) < 80
        assert made.service.counts == {rpc.Code.CANCELLED: 1}


@looped
async def test_a_deadline_ends_a_stream_of_answers() -> None:
    async with shop() as made:
        forever = rpc.StreamMethod("forever", TEXT, TEXT)

        @made.service.method(forever)
        async def wait_for_ever(request: str, call: rpc.Call) -> AsyncIterator[str]:
            yield "one"
            await made.wait(request, call)
            yield "two"

        await made.client.call(ECHO, b"")  # connects
        async with made.client.stream(forever, "a", timeout_s=seconds(0.5)) as items:
            assert await anext(items) == "one"
            assert (await error_of(anext(items))).code is rpc.Code.DEADLINE_EXCEEDED
        await eventually(lambda: made.cancelled == ["a"])
        assert await made.client.call(LENGTH, "and on") == 6


# -- use ---------------------------------------------------------------------------------------


@looped
async def test_a_method_knows_who_calls() -> None:
    async with shop() as made:
        who = rpc.Method("who", rpc.BYTES, TEXT)

        @made.service.method(who)
        async def answer(request: bytes, call: rpc.Call) -> str:
            return f"{call.method} {call.peer}"

        assert await made.client.call(who, b"") == f"who {made.dialer.peer_id}"


@looped
async def test_a_closed_client_makes_no_more_calls_and_leaves_no_stream() -> None:
    async with shop() as made:
        await made.client.call(ECHO, b"")
        await made.client.close()
        assert made.client._deadlines._timer is None, "a program may make a client for each call"
        assert (await error_of(made.client.call(ECHO, b""))).code is rpc.Code.CANCELLED
        await eventually(lambda: made.server.swarm.num_handlers_running == 0)


@looped
async def test_a_program_asks_its_own_client_over_the_same_connection() -> None:
    async with shop() as made:
        await made.client.call(ECHO, b"")
        back = rpc.Service("/back/1.0.0")
        back.method(LENGTH)(lambda request, call: asyncio.sleep(0, len(request)))
        back.serve(made.dialer)
        async with rpc.Client(made.server, made.server.swarm.conns()[0], "/back/1.0.0") as client:
            assert await client.call(LENGTH, "hello") == 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: rpc.Service("shop"),
        lambda: rpc.Service("/shop\n"),
        lambda: rpc.Service("/" + "x" * 255),
        lambda: rpc.Service(7),
        lambda: rpc.Service("/shop", idle_s=0),
        lambda: rpc.Service("/shop", max_request_bytes=-1),
        lambda: rpc.Service("/shop", bounds=7),
        lambda: rpc.Bounds(running=0),
        lambda: rpc.Method("", TEXT, TEXT),
        lambda: rpc.Method("ä" * 128, TEXT, TEXT),
        lambda: rpc.Method("x", str, TEXT),
        lambda: rpc.Codec(7, 8),
        lambda: rpc.Retry(attempts=1),
        lambda: rpc.Retry(attempts=11),
        lambda: rpc.Retry(codes={14}),
        lambda: rpc.Service("/shop").method(7),
        lambda: rpc.Client(None, "", "/shop", timeout_s=-1),
        lambda: rpc.Client(None, "", "/shop", max_streams=0),
    ],
)
def test_wrong_arguments_are_refused_when_they_are_given(make: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        make()


def test_a_method_is_added_once_and_stays_the_function_it_was() -> None:
    service = rpc.Service("/shop")

    @service.method(LENGTH)
    async def length(request: str, call: rpc.Call) -> int:
        return 1

    assert asyncio.iscoroutinefunction(length)
    with pytest.raises(ValueError, match="has a method 'length' already"):
        service.method(LENGTH)(length)


# -- the wire, with a peer made by hand --------------------------------------------------------


@looped
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("01 04 00000000 00000000 6563686f", codes.STREAM_PROTOCOL_VIOLATION),
        ("00 00 00000000 00000000", codes.STREAM_PROTOCOL_VIOLATION),
    ],
)
async def test_a_request_that_is_none_resets_the_stream_with_a_code(sent: str, code: int) -> None:
    async with shop() as made:
        stream = await made.dialer.new_stream(made.server.addrs_with_peer[0], made.service.protocol)
        await stream.write(bytes.fromhex(sent))
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert (caught.value.code, caught.value.remote) == (code, True)
        assert await made.client.call(LENGTH, "others go on") == 12


@looped
async def test_a_caller_without_p2pcore_ends_its_half_and_reads_the_answer() -> None:
    async with shop() as made:
        stream = await made.dialer.new_stream(made.server.addrs_with_peer[0], "/p2pcore-rpc/1/shop/1.0.0")
        await stream.write(bytes.fromhex("00 06 00000000 00000004 6c656e677468 66697665"))
        await stream.close_write()
        assert await stream.read() == bytes.fromhex("00 00000001 34")
        assert await stream.read() == b"", "the service ends the stream too"


@looped
async def test_a_request_that_ends_early_runs_nothing() -> None:
    async with shop() as made:
        for sent in ("00 04", "00 04 00000000 00000002 776169", "00 04 00000000 00000002 77616974 61"):
            stream = await made.dialer.new_stream(made.server.addrs_with_peer[0], made.service.protocol)
            await stream.write(bytes.fromhex(sent))
            await stream.close_write()
            with pytest.raises(StreamReset):
                await stream.read()
        assert made.begun == []


async def served_by(made: Any, answer: bytes, code: int | None = None) -> rpc.RpcError:
    """The error of a call that a peer made by hand answers with `answer`, then a reset or the end."""

    async def serve(stream: Stream) -> None:
        await stream.read()
        if answer:
            await stream.write(answer)
        if code is not None:
            await settle()
            stream.reset(code)

    made.server.set_stream_handler("/p2pcore-rpc/1/hand/1", serve)
    async with rpc.Client(made.dialer, made.server.addrs_with_peer[0], "/hand/1") as client:
        return await error_of(client.call(ECHO, b""))


@looped
async def test_whatever_a_service_answers_is_an_answer_or_a_typed_error() -> None:
    code = rpc.Code
    async with shop() as made:
        for answer, expected in {
            "": code.UNAVAILABLE,
            "00 000000": code.UNAVAILABLE,
            "00 00000004 01": code.UNAVAILABLE,
            "07 00000000": code.INTERNAL,
            "01 00000000": code.INTERNAL,
            "02 00000001": code.INTERNAL,
            "03 00000000": code.INTERNAL,
            "03 00000001 63": code.UNKNOWN,
            "03 00000001 06": code.ALREADY_EXISTS,
            "00 ffffffff": code.RESOURCE_EXHAUSTED,
        }.items():
            error = await served_by(made, bytes.fromhex(answer))
            assert error.code is expected, answer
        for reset, expected in {
            0: code.UNAVAILABLE,
            codes.STREAM_RESOURCE_LIMIT_EXCEEDED: code.RESOURCE_EXHAUSTED,
            codes.STREAM_PROTOCOL_VIOLATION: code.INTERNAL,
            RPC_RESET_BASE + code.DEADLINE_EXCEEDED: code.DEADLINE_EXCEEDED,
            RPC_RESET_BASE + code.UNAVAILABLE: code.UNAVAILABLE,
            0xFFFFFFFF: code.UNAVAILABLE,
        }.items():
            assert (await served_by(made, b"", reset)).code is expected, reset
