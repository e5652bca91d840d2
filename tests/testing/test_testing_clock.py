"""The virtual loop: time passes at once, for everything p2pcore does, and what never happens is an error."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time

import pytest

from p2pcore import YamuxOptions
from p2pcore._fast.loop import clock
from p2pcore.errors import ConnectionClosed, DeadlineExceeded
from p2pcore.testing import Network, VirtualLoop, connected_pair, run_virtual, virtual
from virtual_time import now


@virtual
async def test_a_day_passes_at_once_and_exactly() -> None:
    await asyncio.sleep(86_400)
    assert now() == 86_400


def test_the_clock_of_compiled_modules_is_the_loops_while_it_runs() -> None:
    async def main() -> None:
        assert clock.is_frozen()
        await asyncio.sleep(5)
        assert clock.now() == now() == 5
        time.sleep(0.001)  # noqa: ASYNC251 - the clock of people goes on
        assert clock.now() == 5

    before = clock.now()
    run_virtual(main())
    assert not clock.is_frozen()
    assert clock.now() >= before > 5


def test_a_clock_stands_at_a_second_from_zero() -> None:
    try:
        for wrong in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="number of seconds from 0"):
                clock.freeze(wrong)
        assert not clock.is_frozen()
    finally:
        clock.thaw()  # or every later test would find it standing


@virtual
async def test_a_deadline_of_a_stream_passes_at_its_second() -> None:
    async with connected_pair() as (a, b):
        b.set_stream_handler("/silent", lambda stream: asyncio.sleep(1e4))
        stream = await a.new_stream(b.peer_id, "/silent")
        await stream.write(b"?")
        start = now()
        stream.set_deadline(3600)
        with pytest.raises(DeadlineExceeded):
            await stream.read()
        assert 3600 <= now() - start < 3601
        stream.reset()


@virtual
async def test_a_peer_that_went_silent_is_found_out_by_keep_alive() -> None:
    network = Network()
    async with network.pair(a={"yamux": YamuxOptions(keepalive_s=30)}) as (a, b):
        b.set_stream_handler("/silent", lambda stream: asyncio.sleep(1e4))
        stream = await a.new_stream(b.peer_id, "/silent")
        await stream.write(b"?")
        await a.ping(b.peer_id)
        network.silence(a, b)
        start = now()
        with pytest.raises(ConnectionClosed):
            await stream.read()
        assert 30 < now() - start < 60
        await asyncio.sleep(60)
        assert a.swarm.conns() == []


def test_waiting_for_what_never_happens_is_an_error() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(AssertionError, match="never happen"):
        run_virtual(main())
    assert not clock.is_frozen()


@virtual
async def test_a_thread_of_the_executor_is_waited_for() -> None:
    assert await asyncio.to_thread(lambda: time.sleep(0.01) or 7) == 7  # type: ignore[func-returns-value]


def test_one_virtual_loop_runs_at_a_time() -> None:
    failed: list[BaseException] = []

    def other() -> None:
        loop, never = VirtualLoop(), asyncio.sleep(0)
        try:
            loop.run_until_complete(never)
        except RuntimeError as error:
            failed.append(error)
        finally:
            never.close()
            loop.close()

    async def main() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    run_virtual(main())
    assert "another virtual loop" in str(failed[0])


def test_a_virtual_test_is_a_plain_function_with_its_name_and_arguments() -> None:
    @virtual
    async def test_something(monkeypatch: object) -> None:
        """Doc."""

    assert not inspect.iscoroutinefunction(test_something)
    assert list(inspect.signature(test_something).parameters) == ["monkeypatch"]
    assert (test_something.__name__, test_something.__doc__) == ("test_something", "Doc.")
