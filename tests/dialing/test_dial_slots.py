"""DialSlots: the addresses dialled at once are shared fairly by the peers that are dialled."""

from __future__ import annotations

import asyncio

from harness import looped
from p2pcore import limits
from p2pcore.dialing.slots import DialSlots
from p2pcore.errors import DialError
from swarm_fakes import FakeTransport, addr, make_swarm, peer
from virtual_time import now, virtual


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Line:
    """Callers that wait for slots, by name, and the order in which they got one."""

    def __init__(self, maximum: int) -> None:
        self.slots = DialSlots(maximum)
        self.served: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def wait(self, names: str) -> None:
        for name in names:
            self.tasks.append(asyncio.create_task(self._one(name)))
        await settle()

    async def _one(self, name: str) -> None:
        await self.slots.acquire(name)
        self.served.append(name)

    async def release(self, names: str) -> str:
        """Returns: who got a slot."""
        before = len(self.served)
        for name in names:
            self.slots.release(name)
            await settle()
        return "".join(self.served[before:])


@looped
async def test_a_peer_alone_may_have_all_slots_if_they_are_few() -> None:
    line = Line(3)
    await line.wait("aaaa")
    assert line.served == ["a"] * 3
    assert await line.release("a") == "a"


@looped
async def test_the_peer_with_the_fewest_slots_is_next_and_equals_take_turns() -> None:
    line = Line(4)
    await line.wait("aaaaaaaa" + "bb" + "c")
    assert line.served == ["a"] * 4
    assert await line.release("aaa") == "bcb", "first those without a slot, then in turn"
    assert await line.release("c") == "a"


@looped
async def test_a_waiter_that_gave_up_takes_no_slot() -> None:
    line = Line(1)
    await line.wait("abc")
    line.tasks[1].cancel()
    assert await line.release("a") == "c"
    line.tasks[2].cancel()
    await line.release("c")
    assert line.slots.num_free == 1
    assert not line.slots._held
    assert not line.slots._lines


@looped
async def test_a_slot_given_to_a_caller_that_is_cancelled_at_once_is_not_lost() -> None:
    line = Line(1)
    await line.wait("ab")
    line.slots.release("a")
    line.tasks[1].cancel()
    await settle()
    assert line.slots.num_free == 1


class Dead(FakeTransport):
    """Each address takes 5 seconds and fails, except those of 10.0.0.1."""

    def __init__(self) -> None:
        super().__init__("tcp", "ws")

    async def dial(self, target: object, expected: object) -> object:
        if "/10.0.0.1/" not in str(target):
            await asyncio.sleep(limits.TCP_CONNECT_TIMEOUT_S - 0.001)
            raise ConnectionRefusedError("dead")
        return await super().dial(target, expected)  # type: ignore[arg-type]


@virtual
async def test_peers_with_many_dead_addresses_do_not_hold_up_a_dial_to_another_peer() -> None:
    swarm, _ = make_swarm()
    swarm._transports._items[:] = [Dead()]
    dead = [
        asyncio.create_task(
            swarm.dial_peer(peer(number), [addr(port, f"1.2.3.{number}") for port in range(1, 101)])
        )
        for number in range(2, 27)
    ]
    for _ in range(20):
        await asyncio.sleep(1.0)
        began = now()
        conn = await swarm.dial_addr(addr(now().__hash__() % 60000 + 1, "10.0.0.1"))
        assert now() == began, "it waits for none of them"
        await conn.close()
    for each in dead:
        each.cancel()
    await asyncio.wait(dead)
    await swarm.close()


@virtual
async def test_one_peer_still_dials_eight_addresses_at_once_and_many_peers_use_every_slot() -> None:
    swarm, _ = make_swarm()
    transport = Dead()
    swarm._transports._items[:] = [transport]
    dials = [asyncio.create_task(swarm.dial_peer(peer(n), [addr(1, "1.2.3.4")])) for n in range(1, 201)]
    await asyncio.sleep(1.0)
    assert swarm._dialer._slots.num_free == 0
    results = await asyncio.gather(*dials, return_exceptions=True)
    assert all(isinstance(result, DialError) for result in results)
    assert now() < 2 * limits.TCP_CONNECT_TIMEOUT_S + 1
    assert swarm._dialer._slots.num_free == limits.MAX_DIALS
    await swarm.close()
