"""What every bus promises, on every bus: messages, requests, buckets, watches, and an engine that goes away.

Comes in: the kits of buses.py. Goes out: claims about the interface of fleet/bus.py, and about nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from buses import KITS, Kit

from harness import HANG_S, eventually, looped, seconds, settle
from p2pcore.errors import BusDown, LimitExceeded, NobodyListens
from p2pcore.fleet.bus import Bus, BusMessage
from p2pcore.limits import BUS_MAX_MESSAGE_BYTES, BUS_MAX_NAME_CHARS, BUS_MAX_VALUE_BYTES

LONG_S = HANG_S / 4


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest) -> Kit:
    return KITS[request.param](request)


def answering(text: bytes = b"") -> Callable[[BusMessage], None]:
    """Answers each request with `text` and the request."""

    def deliver(message: BusMessage) -> None:
        assert message.answer is not None
        message.answer(text + message.data)

    return deliver


async def is_deserted(bus: Bus, subject: str) -> bool:
    """True once nobody listens there: the engine learns of a closed subscription a moment later."""
    for _ in range(100):
        try:
            await bus.request(subject, b"", timeout_s=seconds(0.1))
        except NobodyListens:
            return True
        except TimeoutError:
            pass
    return False


class Seen:
    """What a watch was told: every change in order, and the table that they make."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, bytes | None]] = []
        self.table: dict[str, bytes] = {}

    def __call__(self, key: str, value: bytes | None) -> None:
        self.changes.append((key, value))
        if value is None:
            self.table.pop(key)  # only what was there can go
        else:
            self.table[key] = value


# -- messages ----------------------------------------------------------------------------------


def test_every_bus_is_a_bus(kit: Kit) -> None:
    @looped
    async def main() -> None:
        async with kit.buses(1) as [bus]:
            assert isinstance(bus, Bus)
            assert bus.is_up

    main()


@looped
async def test_a_message_reaches_all_who_subscribed_and_its_sender_too(kit: Kit) -> None:
    async with kit.buses(3) as (a, b, c):
        got: list[list[BusMessage]] = [[], [], []]
        for bus, to in zip((a, b, c), got, strict=True):
            await bus.subscribe("news.today", to.append)
        await a.publish("news.today", b"1")
        await eventually(lambda: all(got))
        assert got == [[BusMessage("news.today", b"1")]] * 3


@looped
async def test_messages_of_one_sender_come_in_order(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        got: list[bytes] = []
        await b.subscribe("a.*", lambda message: got.append(message.data))
        sent = [b"%d" % n for n in range(200)]
        for n, data in enumerate(sent):
            await a.publish(f"a.{n % 3}", data)
        await eventually(lambda: len(got) == len(sent))
        assert got == sent


@looped
async def test_a_star_stands_for_one_last_word(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        got: list[str] = []
        await bus.subscribe("a.*", lambda message: got.append(message.subject))
        for subject in ("a", "a.b", "a.b.c", "b.a", "a.c", "ab", "a.-_9"):
            await bus.publish(subject, b"")
        await eventually(lambda: len(got) == 3)
        await settle()
        assert got == ["a.b", "a.c", "a.-_9"]


@looped
async def test_nobody_has_to_be_there(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        await bus.publish("nobody", b"hears")


@looped
async def test_nothing_is_delivered_inside_the_call_that_sends(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        inside = [0]
        nested: list[int] = []
        publishing: set[asyncio.Task[None]] = set()

        def deliver(message: BusMessage) -> None:
            nested.append(inside[0])
            inside[0] += 1
            if message.data:
                publishing.add(asyncio.ensure_future(bus.publish("again", message.data[1:])))
            inside[0] -= 1

        await bus.subscribe("again", deliver)
        await bus.publish("again", b"1234")
        await eventually(lambda: len(nested) == 5)
        assert nested == [0] * 5
        await asyncio.gather(*publishing)


@looped
async def test_a_closed_subscription_gets_nothing(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        got: list[bytes] = []
        all_of_them: list[bytes] = []
        subscription = await b.subscribe("s", lambda message: got.append(message.data))
        await b.subscribe("s", lambda message: all_of_them.append(message.data))
        await a.publish("s", b"1")
        await eventually(lambda: got and all_of_them)
        subscription.close()
        subscription.close()
        await a.publish("s", b"2")
        await eventually(lambda: len(all_of_them) == 2)
        await settle()
        assert got == [b"1"]


@looped
async def test_a_callback_that_raises_ends_nothing(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        got: list[bytes] = []

        def deliver(message: BusMessage) -> None:
            got.append(message.data)
            raise RuntimeError("on purpose")

        await bus.subscribe("s", deliver)
        await bus.publish("s", b"1")
        await bus.publish("s", b"2")
        await eventually(lambda: got == [b"1", b"2"])
        assert bus.is_up


@looped
async def test_the_longest_message_passes_and_a_longer_one_does_not(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        got: list[int] = []
        await b.subscribe("long", lambda message: got.append(len(message.data)))
        await a.publish("long", bytes(BUS_MAX_MESSAGE_BYTES))
        await eventually(lambda: got == [BUS_MAX_MESSAGE_BYTES])
        with pytest.raises(LimitExceeded, match="BUS_MAX_MESSAGE_BYTES: 1000001 is over") as caught:
            await a.publish("long", bytes(BUS_MAX_MESSAGE_BYTES + 1))
        assert (caught.value.used, caught.value.maximum) == (BUS_MAX_MESSAGE_BYTES + 1, BUS_MAX_MESSAGE_BYTES)
        with pytest.raises(LimitExceeded):
            await a.request("long", bytes(BUS_MAX_MESSAGE_BYTES + 1), timeout_s=1)
        assert a.is_up


WRONG = [
    "",
    ".",
    "a.",
    ".a",
    "a..b",
    "a b",
    "a.*.b",
    "*",
    ">",
    "a.>",
    "a\n",
    "é",
    "a*",
    "$a",
    "a/b",
    "a.\x00",
]


@pytest.mark.parametrize("subject", [*WRONG, "a.*"])
@looped
async def test_a_wrong_subject_is_an_error_that_names_it(kit: Kit, subject: str) -> None:
    async with kit.buses(1) as [bus]:
        expected = f"subject must be words of .* not {subject!r}".replace("*'", "[*]'").replace("\\", ".")
        expected = expected.replace("$", "[$]").replace("*.b", "[*].b")
        with pytest.raises(ValueError, match=expected):
            await bus.publish(subject, b"")
        with pytest.raises(ValueError, match=expected):
            await bus.request(subject, b"", timeout_s=1)
        if subject in WRONG:
            with pytest.raises(ValueError, match=expected):
                await bus.subscribe(subject, print)


@looped
async def test_wrong_arguments_are_errors_that_name_them(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        bucket = await bus.bucket("b")
        long = "x" * (BUS_MAX_NAME_CHARS + 1)
        wrong: Any = None
        for call, error, text in [
            (lambda: bus.publish(wrong, b""), TypeError, "subject must be words of .*not NoneType"),
            (lambda: bus.publish(long, b""), ValueError, "subject must have at most 256 characters, not 257"),
            (lambda: bus.publish("s", wrong), TypeError, "data must be bytes, not NoneType"),
            (lambda: bus.subscribe("s", wrong), TypeError, "deliver"),
            (lambda: bus.request("s", b"", timeout_s=0), ValueError, "timeout_s .*0"),
            (lambda: bus.bucket("b.c"), ValueError, "name must be a word of .*not 'b.c'"),
            (lambda: bus.bucket("b", expiry_s=0.5), ValueError, "expiry_s must be at least 1, not 0.5"),
            (lambda: bucket.put({"k.*": b""}), ValueError, "key must be words of .*'k[.][*]'"),
            (lambda: bucket.put({"k": wrong, "": b""}), ValueError, "key must be words of .*not ''"),
            (lambda: bucket.put({"k": "text"}), TypeError, "value must be bytes, not str"),  # type: ignore[dict-item]
            (lambda: bucket.put(wrong), TypeError, "entries must be a mapping"),
            (lambda: bucket.put({"k": bytes(BUS_MAX_VALUE_BYTES + 1)}), LimitExceeded, "BUS_MAX_VALUE_BYTES"),
            (lambda: bucket.get("a.>"), ValueError, "key must be words of .*'a.>'"),
            (lambda: bucket.watch("*", print), ValueError, "key must be words of "),
            (lambda: bucket.watch("a", wrong), TypeError, "changed"),
        ]:
            with pytest.raises(error, match=text):
                await call()
        with pytest.raises(TypeError, match="changed"):
            bus.on_state(wrong)


# -- requests ----------------------------------------------------------------------------------


@looped
async def test_a_request_gets_its_answer(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        await b.subscribe("echo", answering(b"you said "))
        assert await a.request("echo", b"hello", timeout_s=seconds(LONG_S)) == b"you said hello"
        assert await b.request("echo", b"", timeout_s=seconds(LONG_S)) == b"you said "


@looped
async def test_requests_at_once_get_each_its_own_answer(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        kept: list[BusMessage] = []
        await b.subscribe("echo.*", kept.append)
        asked = [
            asyncio.ensure_future(a.request(f"echo.{n}", b"%d" % n, timeout_s=seconds(LONG_S)))
            for n in range(50)
        ]
        await eventually(lambda: len(kept) == 50)
        for message in reversed(kept):
            assert message.answer is not None
            message.answer(message.subject.encode())
        assert await asyncio.gather(*asked) == [b"echo.%d" % n for n in range(50)]


@looped
async def test_a_message_that_is_no_request_has_no_answer(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        got: list[BusMessage] = []
        await bus.subscribe("s", got.append)
        await bus.publish("s", b"")
        await eventually(lambda: got)
        assert got[0].answer is None


@looped
async def test_a_request_that_nobody_hears_fails_at_once(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        with pytest.raises(NobodyListens, match=r"nobody subscribed to 'empty\.room'"):
            await a.request("empty.room", b"", timeout_s=seconds(HANG_S * 4))
        subscription = await b.subscribe("empty.room", answering())
        await a.request("empty.room", b"", timeout_s=seconds(LONG_S))
        subscription.close()
        assert await is_deserted(a, "empty.room")


@looped
async def test_a_request_without_an_answer_times_out_and_a_late_answer_harms_nobody(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        kept: list[BusMessage] = []
        await b.subscribe("slow", kept.append)
        with pytest.raises(TimeoutError, match=r"nobody answered on 'slow' within 0\.05 s"):
            await a.request("slow", b"1", timeout_s=0.05)
        await eventually(lambda: kept)
        asked = asyncio.ensure_future(a.request("slow", b"2", timeout_s=seconds(LONG_S)))
        await eventually(lambda: len(kept) == 2)
        for message in kept:
            assert message.answer is not None
            message.answer(b"answer " + message.data)
            message.answer(b"a second answer")
        assert await asked == b"answer 2"


@looped
async def test_an_answer_never_raises(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        kept: list[BusMessage] = []
        await b.subscribe("s", kept.append)
        asked = asyncio.ensure_future(a.request("s", b"", timeout_s=seconds(LONG_S)))
        await eventually(lambda: kept)
        assert kept[0].answer is not None
        kept[0].answer(bytes(BUS_MAX_MESSAGE_BYTES + 1))
        kept[0].answer(None)  # type: ignore[arg-type]
        kept[0].answer(bytes(BUS_MAX_MESSAGE_BYTES))
        assert len(await asked) == BUS_MAX_MESSAGE_BYTES
        await b.close()
        kept[0].answer(b"after the end")


@looped
async def test_a_cancelled_request_leaves_the_bus_usable(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        kept: list[BusMessage] = []
        await b.subscribe("s", kept.append)
        asked = asyncio.ensure_future(a.request("s", b"", timeout_s=seconds(LONG_S)))
        await eventually(lambda: kept)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert kept[0].answer is not None
        kept[0].answer(b"late")
        await b.subscribe("echo", answering())
        assert await a.request("echo", b"x", timeout_s=seconds(LONG_S)) == b"x"


@looped
async def test_cancelling_any_verb_at_any_turn_leaves_the_bus_usable(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        await b.subscribe("echo", answering())
        bucket = await a.bucket("b")
        verbs: list[Callable[[], Any]] = [
            lambda: a.publish("echo.not", b"x"),
            lambda: a.request("echo", b"x", timeout_s=seconds(LONG_S)),
            lambda: a.subscribe("other", print),
            lambda: a.bucket("c"),
            lambda: bucket.put({"k": b"v", "l": b"w"}),
            lambda: bucket.get("k"),
            lambda: bucket.watch("other", lambda key, value: None),
        ]
        for verb in verbs:
            for turns in range(12):
                task = asyncio.ensure_future(verb())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
        assert await a.request("echo", b"still here", timeout_s=seconds(LONG_S)) == b"still here"
        await bucket.put({"k": b"1"})
        assert await bucket.get("k") == {"k": b"1"}
        assert a.is_up


# -- buckets -----------------------------------------------------------------------------------


@looped
async def test_an_entry_is_found_by_its_key_and_by_its_first_words(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        mine, theirs = await a.bucket("places"), await b.bucket("places")
        assert await theirs.get("peer") == {}
        entries: dict[str, bytes | None] = {"peer.1": b"a", "peer.2.x": b"b", "peer": b"c", "peers.1": b"d"}
        await mine.put(entries)
        assert await theirs.get("peer") == {"peer": b"c", "peer.1": b"a", "peer.2.x": b"b"}
        assert await theirs.get("peer.2") == {"peer.2.x": b"b"}
        assert await theirs.get("peer.2.x") == {"peer.2.x": b"b"}
        assert await theirs.get("pee") == {}


@looped
async def test_put_writes_deletes_and_overwrites_many_at_once(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        mine, theirs = await a.bucket("places"), await b.bucket("places")
        await mine.put({f"k.{n}": b"%d" % n for n in range(100)})
        await theirs.put({f"k.{n}": None if n % 2 else b"new" for n in range(150)})
        found = await mine.get("k")
        assert found == {f"k.{n}": b"new" for n in range(0, 150, 2)}
        await mine.put({})
        await mine.put({"k.0": b""})
        assert await mine.get("k.0") == {"k.0": b""}


@looped
async def test_thousands_of_entries_come_with_one_get(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        bucket = await bus.bucket("many")
        entries: dict[str, bytes | None] = {f"a.{n % 7}.{n}": b"%d" % n for n in range(5000)}
        await bucket.put(entries)
        assert await bucket.get("a") == entries
        await bucket.put(dict.fromkeys(entries))
        assert await bucket.get("a") == {}


@looped
async def test_buckets_do_not_see_each_other(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        one, two = await bus.bucket("one"), await bus.bucket("two")
        await one.put({"k": b"1"})
        assert await two.get("k") == {}


@looped
async def test_an_entry_goes_when_it_has_not_been_put_for_the_expiry(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        bucket = await a.bucket("short", expiry_s=1)
        seen = Seen()
        await (await b.bucket("short", expiry_s=1)).watch("k", seen)
        lasting = await a.bucket("lasting")
        await lasting.put({"k": b"stays"})
        await bucket.put({"k.once": b"1", "k.kept": b"1"})
        while "k.once" in await bucket.get("k"):
            await bucket.put({"k.kept": b"1"})
            await asyncio.sleep(0.02)
        assert await bucket.get("k") == {"k.kept": b"1"}
        await eventually(lambda: not seen.table)
        assert seen.changes[-2:] == [("k.once", None), ("k.kept", None)]
        assert await bucket.get("k") == {}
        assert await lasting.get("k") == {"k": b"stays"}


@pytest.mark.parametrize("expiry_s", [None, 600.0])
@looped
async def test_a_swap_writes_only_what_is_as_expected(kit: Kit, expiry_s: float | None) -> None:
    async with kit.buses(2) as (a, b):
        one, two = [await bus.bucket("swapped", expiry_s=expiry_s) for bus in (a, b)]
        assert not await one.swap("turn", b"x", b"y")
        assert await one.swap("turn", None, b"1")
        assert not await two.swap("turn", None, b"2")
        assert not await two.swap("turn", b"", b"2")
        assert await two.get("turn") == {"turn": b"1"}
        assert await two.swap("turn", b"1", b"")
        assert await one.swap("turn", b"", b"3")
        await two.put({"turn": b"4", "turn.more": b"x"})
        assert not await one.swap("turn", b"3", b"5")
        assert await one.swap("turn", b"4", b"444")
        assert await one.swap("turn", b"444", None)
        assert await two.get("turn") == {"turn.more": b"x"}
        assert not await two.swap("turn", b"444", b"5")
        for _ in range(2):  # also after it was deleted
            assert await two.swap("turn", None, b"6")
            assert await one.swap("turn", b"6", None)
        assert await one.swap("turn", None, None)


@looped
async def test_of_many_swaps_at_once_one_succeeds(kit: Kit) -> None:
    async with kit.buses(3) as buses:
        buckets = [await bus.bucket("swapped") for bus in buses]
        value: bytes | None = None
        for number in range(10):
            tries = [
                bucket.swap("turn", value, b"%d.%d.%d" % (number, each, again))
                for each, bucket in enumerate(buckets)
                for again in range(4)
            ]
            assert sum(await asyncio.gather(*tries)) == 1
            value = (await buckets[0].get("turn"))["turn"]


@looped
async def test_a_wrong_swap_is_an_error(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        bucket: Any = await bus.bucket("swapped")
        for wrong in (("a b", None, b""), ("a", "x", b""), ("a", None, 5)):
            with pytest.raises((TypeError, ValueError)):
                await bucket.swap(*wrong)
        with pytest.raises(LimitExceeded):
            await bucket.swap("a", None, bytes(BUS_MAX_VALUE_BYTES + 1))


@looped
async def test_a_watch_is_told_what_is_there_and_then_each_change(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        mine, theirs = await a.bucket("w"), await b.bucket("w")
        await mine.put({"k.1": b"1", "k.2": b"2", "other": b"3"})
        await mine.put({"k.2": None})
        seen = Seen()
        watch = await theirs.watch("k", seen)
        assert seen.changes == [("k.1", b"1")]
        await mine.put({"k.1": b"new", "k.3": b"3", "other.k": b""})
        await eventually(lambda: "k.3" in seen.table)
        await mine.put({"k.1": None, "k.4": None})
        await mine.put({"k": b"end"})
        await eventually(lambda: "k" in seen.table)
        assert seen.changes[1:] == [("k.1", b"new"), ("k.3", b"3"), ("k.1", None), ("k", b"end")]
        watch.close()
        watch.close()
        await mine.put({"k": b"more"})
        assert await theirs.get("k.3") == {"k.3": b"3"}
        await settle()
        assert seen.table["k"] == b"end"


@looped
async def test_a_watch_of_many_ends_with_what_is_there(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        mine, theirs = await a.bucket("w"), await b.bucket("w")
        await mine.put({f"k.{n}": b"old" for n in range(2000)})
        seen = Seen()
        watching = asyncio.ensure_future(theirs.watch("k", seen))
        await mine.put({f"k.{n}": b"new" for n in range(1000)})
        await watching
        await mine.put({"k.end": b""})
        await eventually(lambda: "k.end" in seen.table)
        assert seen.table == await mine.get("k")


@looped
async def test_a_put_that_changes_nothing_is_not_told(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        bucket = await bus.bucket("w")
        seen = Seen()
        await bucket.watch("k", seen)
        for value in (b"1", b"1", b"2", b"2"):
            await bucket.put({"k": value})
            await eventually(lambda: seen.table == {"k": value})  # noqa: B023 - it is awaited here
        await bucket.put({"k.end": b""})
        await eventually(lambda: "k.end" in seen.table)
        assert seen.changes == [("k", b"1"), ("k", b"2"), ("k.end", b"")]


# -- the engine goes away ----------------------------------------------------------------------


async def down(kit: Kit, *buses: Bus) -> None:
    await kit.stop()
    await eventually(lambda: not any(bus.is_up for bus in buses))


async def up(kit: Kit, *buses: Bus) -> None:
    await kit.start()
    await eventually(lambda: all(bus.is_up for bus in buses))


@looped
async def test_everything_fails_at_once_while_the_engine_is_away(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        bucket = await bus.bucket("b")
        await down(kit, bus)
        for call in (
            lambda: bus.publish("s", b""),
            lambda: bus.request("s", b"", timeout_s=seconds(HANG_S * 4)),
            lambda: bus.subscribe("s", print),
            lambda: bus.bucket("c"),
            lambda: bucket.put({"k": b""}),
            lambda: bucket.get("k"),
            lambda: bucket.watch("k", print),
        ):
            with pytest.raises(BusDown):
                await call()
        await up(kit, bus)


@looped
async def test_a_request_whose_engine_dies_fails_before_its_time(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        kept: list[BusMessage] = []
        await b.subscribe("s", kept.append)
        asked = asyncio.ensure_future(a.request("s", b"", timeout_s=seconds(HANG_S * 4)))
        await eventually(lambda: kept)
        await kit.stop()
        with pytest.raises(BusDown, match="before the answer"):
            await asked
        assert kept[0].answer is not None
        kept[0].answer(b"too late")
        await up(kit, a, b)


@looped
async def test_subscriptions_hold_when_the_engine_is_back(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        got: list[bytes] = []
        await b.subscribe("s.*", lambda message: got.append(message.data))
        closed = await b.subscribe("s.*", lambda message: got.append(b"wrong"))
        for n in range(2):
            await down(kit, a, b)
            closed.close()
            await up(kit, a, b)
            await a.publish("s.t", b"%d" % n)
            await eventually(lambda: len(got) == n + 1)  # noqa: B023 - it is awaited here
        await settle()
        assert got == [b"0", b"1"]


@looped
async def test_entries_are_there_when_the_engine_is_back_and_buckets_usable(kit: Kit) -> None:
    async with kit.buses(1) as [bus]:
        bucket, short = await bus.bucket("b"), await bus.bucket("short", expiry_s=5)
        await bucket.put({"k": b"1"})
        await down(kit, bus)
        await up(kit, bus)
        assert await bucket.get("k") == {"k": b"1"}
        await short.put({"k": b"2"})
        assert await short.get("k") == {"k": b"2"}


@looped
async def test_a_watch_is_told_what_changed_while_the_engine_was_away(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        bucket = await a.bucket("b")
        await bucket.put({"k.1": b"1", "k.2": b"2"})
        short = await a.bucket("short", expiry_s=1)
        seen, fading = Seen(), Seen()
        await (await b.bucket("b")).watch("k", seen)
        await (await b.bucket("short", expiry_s=1)).watch("k", fading)
        await short.put({"k": b"soon gone"})
        await eventually(lambda: fading.table)
        await down(kit, a, b)
        await asyncio.sleep(1.1)  # the time of the expiry itself
        await up(kit, a, b)
        await eventually(lambda: not fading.table)
        assert fading.changes == [("k", b"soon gone"), ("k", None)]
        await bucket.put({"k.1": b"new", "k.2": None})
        await eventually(lambda: seen.table == {"k.1": b"new"})
        assert len(seen.changes) == 4
        assert seen.changes[2:] == [("k.1", b"new"), ("k.2", None)]


@looped
async def test_who_asked_is_told_when_the_engine_goes_and_when_all_subscriptions_hold_again(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        states: list[bool] = []
        answers: list[Any] = []
        await b.subscribe("echo", answering())
        mine = a.on_state(states.append)
        closed = a.on_state(states.append)
        closed.close()
        asking: list[asyncio.Future[bytes]] = []

        def changed(is_up: bool) -> None:
            assert b.is_up == is_up
            if is_up:
                asking.append(asyncio.ensure_future(b.request("echo", b"x", timeout_s=seconds(LONG_S))))

        b.on_state(changed)
        await down(kit, a, b)
        await up(kit, a, b)
        await eventually(lambda: asking)
        answers.append(await asking[0])
        await eventually(lambda: len(states) == 2)
        assert (states, answers) == ([False, True], [b"x"])
        mine.close()
        mine.close()
        await down(kit, a, b)
        await up(kit, a, b)
        await settle()
        assert states == [False, True]
        assert set(await asyncio.gather(*asking)) == {b"x"}


# -- the end -----------------------------------------------------------------------------------


@looped
async def test_after_its_close_a_bus_calls_nobody_and_does_nothing(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        got: list[Any] = []
        bucket = await b.bucket("b")
        subscription = await b.subscribe("s", got.append)
        watch = await bucket.watch("k", lambda key, value: got.append(key))
        b.on_state(got.append)
        asked = asyncio.ensure_future(b.request("s", b"", timeout_s=seconds(HANG_S * 4)))
        await eventually(lambda: got)
        got.clear()
        await b.close()
        await b.close()
        with pytest.raises(BusDown):
            await asked
        for call in (
            lambda: b.publish("s", b""),
            lambda: b.request("s", b"", timeout_s=1),
            lambda: b.subscribe("s", print),
            lambda: b.bucket("c"),
            lambda: bucket.put({"k": b""}),
            lambda: bucket.get("k"),
            lambda: bucket.watch("k", print),
        ):
            with pytest.raises(BusDown, match="the bus is closed"):
                await call()
        assert not b.is_up
        await a.publish("s", b"")
        await (await a.bucket("b")).put({"k": b""})
        subscription.close()
        watch.close()
        assert await is_deserted(a, "s")
        assert got == []


@looped
async def test_a_bus_can_be_closed_while_the_engine_is_away(kit: Kit) -> None:
    async with kit.buses(2) as (a, b):
        await b.subscribe("s", print)
        await down(kit, a, b)
        await b.close()
        await up(kit, a)
        assert not b.is_up
