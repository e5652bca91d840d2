"""Awaitables without coroutines: they pass for coroutines wherever asyncio takes one.

Comes in: an Op that waits and one that does not. Goes out: the protocol of send, throw and close.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Coroutine

import pytest

from _fast.chains import Cable, RawYamux
from harness import looped, settle
from p2pcore import errors
from p2pcore._fast.loop.waiting import Op


@looped
async def test_an_op_is_a_coroutine_to_asyncio() -> None:
    read = Cable().mailbox.read_exactly(1)
    assert isinstance(read, Coroutine)
    assert asyncio.iscoroutine(read)
    assert inspect.isawaitable(read)


@looped
async def test_an_op_that_need_not_wait_never_suspends() -> None:
    cable = Cable()
    cable.deliver(b"there")
    read = cable.mailbox.read_exactly(5)
    with pytest.raises(StopIteration) as caught:
        read.send(None)
    assert caught.value.value == b"there"
    read = cable.mailbox.read_exactly(0)
    with pytest.raises(StopIteration) as caught:
        next(iter(read.__await__()))
    assert caught.value.value == b""


@looped
async def test_an_op_that_waits_gives_a_future_of_its_loop() -> None:
    cable = Cable()
    read = cable.mailbox.read_exactly(5)
    future = read.send(None)
    assert isinstance(future, asyncio.Future)
    assert future.get_loop() is asyncio.get_running_loop()
    cable.deliver(b"1234")
    assert future.done()  # woken; it looks, and waits again
    again = read.send(None)
    assert again is not future
    cable.deliver(b"5")
    with pytest.raises(StopIteration) as caught:
        read.send(None)
    assert caught.value.value == b"12345"


@looped
async def test_throw_raises_what_it_is_given_and_leaves_the_queue() -> None:
    cable = Cable()
    for thrown in (
        (ValueError("mine"),),
        (ValueError,),
        (ValueError, ValueError("mine")),
        (ValueError, None),
    ):
        read = cable.mailbox.read_exactly(5)
        read.send(None)
        with pytest.raises(ValueError):
            read.throw(*thrown)
    cable.deliver(b"12345")
    assert await cable.mailbox.read_exactly(5) == b"12345"


@looped
async def test_close_leaves_the_queue_and_may_be_called_at_any_time() -> None:
    cable = Cable()
    read = cable.mailbox.read_exactly(2)
    read.close()
    read.send(None)
    read.close()
    read.close()
    other = asyncio.ensure_future(cable.mailbox.read_exactly(2))
    await settle()
    cable.deliver(b"ok")
    assert await other == b"ok"


@looped
async def test_an_op_dropped_while_it_waits_or_was_woken_does_no_harm() -> None:
    peer = RawYamux()
    for woken in (False, True):
        ping = peer.session.ping()
        holder = [ping.send(None), ping]
        holder.append(holder)  # only the garbage collector can free it
        if woken:
            (sent,) = [f for f in await peer.answers() if f.type == 2][-1:]
            peer.deliver(bytes(type(sent)(2, 2, 0, sent.length)))
        del ping, holder
        gc.collect()
    stream = await peer.open_inbound()
    await stream.write(b"fine")
    assert [f.body for f in await peer.answers() if f.type == 0] == [b"fine"]


@looped
async def test_ops_are_made_by_calls_only() -> None:
    with pytest.raises(TypeError):
        Op()
    peer = RawYamux()
    stream = await peer.open_inbound()
    done = stream.write(b"")
    for _ in range(2):
        await done  # done is done
    stream.reset()
    with pytest.raises(errors.StreamReset):
        await stream.write(b"")
