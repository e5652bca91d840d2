"""What only the bus over NATS does: a server that dies, stands still or refuses; readers that are too slow.

Comes in: servers of nats_server.py. Goes out: claims about NatsBus. What every bus does is in test_buses.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from harness import HANG_S, eventually, looped, seconds, settle
from hosts import BARE
from nats_server import NatsServer, free_port
from p2pcore import Host, limits
from p2pcore.errors import BusDown, BusError, LimitExceeded
from p2pcore.fleet import Fleet
from p2pcore.fleet.bus import BusMessage
from p2pcore.fleet.nats_bus import NatsBus

LONG_S = HANG_S / 4


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nats")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    paths = folder / "nats.crt", folder / "nats.key"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    made = NatsServer(tmp_path)
    made.start()
    made.wait_ready()
    yield made
    made.kill()


@asynccontextmanager
async def up(server: NatsServer, **options: Any) -> AsyncIterator[NatsBus]:
    async with NatsBus(server.url, **options) as bus:
        await eventually(lambda: bus.is_up)
        yield bus


def counts() -> tuple[int, int]:
    """Tasks of the loop, and descriptors of the process."""
    return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))


# -- starting ----------------------------------------------------------------------------------


@looped
async def test_it_starts_although_the_engine_is_away_and_finds_it_later(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    states: list[bool] = []
    async with NatsBus(server.url) as bus:
        bus.on_state(states.append)
        assert not bus.is_up
        with pytest.raises(
            BusDown, match=r"NATS is away: no NATS server takes us .127.0.0.1:[0-9]+.: .*refused"
        ):
            await bus.publish("s", b"")
        try:
            server.start()
            await eventually(lambda: bus.is_up)
            await bus.publish("s", b"")
            assert states == [True]
        finally:
            server.kill()


@looped
async def test_a_loss_that_a_call_meets_first_is_known_when_it_fails(server: NatsServer) -> None:
    async with NatsBus([server.url]) as bus:
        await eventually(lambda: bus.is_up)
        client: Any = bus.link()._client
        client._status = client.RECONNECTING  # as nats-py does before it tells us
        with pytest.raises(BusDown, match="NATS is away"):
            await bus.publish("somewhere", b"")
        assert not bus.is_up


@looped
async def test_each_reason_is_in_the_log_once_until_the_engine_is_back(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with up(server) as bus:
        for _ in range(2):
            caplog.clear()
            server.kill()
            await eventually(lambda: not bus.is_up)
            await asyncio.sleep(seconds(0.5))  # some attempts
            told = [
                record.getMessage() for record in caplog.records if record.name == "p2pcore.fleet.nats_bus"
            ]
            assert len(told) == len(set(told))
            assert 1 <= len(told) <= 3
            server.start()
            await eventually(lambda: bus.is_up)


@looped
async def test_a_bus_starts_once(server: NatsServer) -> None:
    bus = NatsBus(server.url)
    with pytest.raises(BusDown, match="it has not started"):
        await bus.publish("s", b"")
    await bus.start()
    with pytest.raises(RuntimeError, match="started already"):
        await bus.start()
    await bus.close()
    with pytest.raises(RuntimeError, match="started already"):
        await bus.start()


@looped
async def test_of_several_servers_one_that_lives_is_enough(server: NatsServer) -> None:
    dead = [f"nats://127.0.0.1:{free_port()}" for _ in range(3)]
    for _ in range(3):
        async with NatsBus([*dead, server.url]) as bus:
            assert bus.is_up


@looped
async def test_a_server_that_does_not_know_us_is_a_reason(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, authorization={"token": "right"})
    server.start()
    server.wait_ready()
    try:
        async with NatsBus(server.url, token="wrong") as bus:
            # It closes with bytes of ours unread, so that its reason may be lost: the next attempt has it.
            await eventually(lambda: "Authorization Violation" in bus._reason)
            with pytest.raises(BusDown, match="NATS is away"):
                await bus.publish("s", b"")
        async with up(server, token="right") as bus:
            await bus.publish("s", b"")
    finally:
        server.kill()


@looped
async def test_tls_with_a_certificate_of_our_own(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    server = NatsServer(tmp_path, tls={"cert_file": str(certificate), "key_file": str(key)})
    server.start()
    server.wait_ready()
    try:
        trusting = ssl.create_default_context(cafile=str(certificate))
        async with NatsBus(server.url.replace("nats:", "tls:"), tls=trusting) as bus:
            await eventually(lambda: bus.is_up)
            bucket = await bus.bucket("b")
            await bucket.put({"k": b"1", "l": b"2"})
            assert await bucket.get("k") == {"k": b"1"}
        async with NatsBus(server.url, tls=ssl.create_default_context()) as bus:
            with pytest.raises(BusDown, match="certificate"):
                await bus.publish("s", b"")
    finally:
        server.kill()


@looped
async def test_a_key_of_nats_lets_us_in(tmp_path: Path) -> None:
    seed = "SUAONWSJTOASCJLKNIP653KLRN3DWBWJQ3ZDRNB5QLEA4NEO7LWBLG5L2M"
    public = "UAWADNTL7VS52UEDR5EIRWCSSXT74JRMZZEID5JRDJ6EEUHNIGVJYTFU"
    server = NatsServer(tmp_path, authorization={"users": [{"nkey": public}]})
    server.start()
    server.wait_ready()
    try:
        async with up(server, nkeys_seed_str=seed) as bus:
            await bus.publish("s", b"")
    finally:
        server.kill()


@looped
async def test_an_old_server_is_refused_with_its_version() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version":"2.12.3","headers":true,"max_payload":1048576}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with NatsBus(f"nats://127.0.0.1:{port}") as bus:
        with pytest.raises(BusDown, match=r"v2.12.3> is too old: p2pcore needs NATS 2.14 or newer"):
            await bus.publish("s", b"")
    listener.close()


@looped
async def test_a_server_without_jetstream_carries_messages_and_refuses_buckets(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, jetstream=False)
    server.start()
    server.wait_ready()
    try:
        async with up(server) as bus:
            got: list[BusMessage] = []
            await bus.subscribe("s", got.append)
            await bus.publish("s", b"")
            await eventually(lambda: got)
            with pytest.raises(BusDown, match="JetStream does not answer"):
                await bus.bucket("b")
    finally:
        server.kill()


def test_without_nats_py_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['nats'] = None; from p2pcore.fleet.nats_bus import NatsBus; NatsBus()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'ImportError: NatsBus needs nats-py: pip install "p2pcore[fleet]"' in done.stderr


def test_importing_the_bus_does_not_import_nats_py() -> None:
    code = "import sys, p2pcore.fleet.nats_bus; print('nats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_wrong_options_are_errors_that_name_them() -> None:
    wrong: Any = [1]
    for make, error, text in [
        (lambda: NatsBus(wrong), TypeError, "servers"),
        (lambda: NatsBus([]), ValueError, "servers must name at least one"),
        (lambda: NatsBus(replicas=0), ValueError, "replicas .* from 1 to 5, not 0"),
        (lambda: NatsBus(replicas=2), ValueError, "replicas must be an odd number, not 2"),
        (lambda: NatsBus(no_such=1), TypeError, "no option 'no_such'"),
        (lambda: NatsBus(no_echo=True), TypeError, "no_echo is not for the caller to set"),
        (lambda: NatsBus(allow_reconnect=True), TypeError, "allow_reconnect is not for the caller"),
    ]:
        with pytest.raises(error, match=text):
            make()


# -- the server dies, or stands still ----------------------------------------------------------


@pytest.mark.slow
@looped
async def test_a_server_that_is_killed_and_back_after_ten_seconds_costs_only_what_failed(
    server: NatsServer,
) -> None:
    async with up(server) as a, up(server) as b:
        received: list[bytes] = []

        def deliver(message: BusMessage) -> None:
            received.append(message.data)
            assert message.answer is not None
            message.answer(message.data)

        await b.subscribe("work", deliver)
        table = await a.bucket("table")
        seen: dict[str, bytes | None] = {}
        await (await b.bucket("table")).watch("k", seen.__setitem__)
        answered: set[bytes] = set()
        failed: set[bytes] = set()
        written: dict[str, bytes] = {}
        before = counts()

        async def ask(number: int) -> None:
            data = b"%d" % number
            try:
                assert await a.request("work", data, timeout_s=seconds(LONG_S)) == data
                answered.add(data)
            except BusError:
                failed.add(data)

        async def write(number: int) -> None:
            with contextlib.suppress(BusError):
                await table.put({f"k.{number}": b"%d" % number, f"k.{number}.x": b""})
                written[f"k.{number}"] = b"%d" % number

        numbers = itertools.count()

        async def work(duration_s: float) -> None:
            end = time.monotonic() + duration_s
            while time.monotonic() < end:
                await asyncio.gather(*(step(next(numbers)) for _ in range(5) for step in (ask, write)))
                await asyncio.sleep(0.01)

        await work(0.5)
        assert answered
        working = asyncio.ensure_future(work(10))
        await asyncio.sleep(0.1)
        server.kill()
        await working
        assert failed
        assert [a.is_up, b.is_up] == [False, False]
        server.start()
        await eventually(lambda: a.is_up and b.is_up)
        num_answered = len(answered)
        await work(0.5)
        assert len(answered) > num_answered
        assert answered <= set(received)
        assert len(received) == len(set(received)), "a message came twice"
        assert not answered & failed
        found = await table.get("k")
        assert written.items() <= found.items()
        await table.put({"k.end": b""})
        await eventually(lambda: "k.end" in seen)
        assert {key: value for key, value in seen.items() if value is not None} == found | {"k.end": b""}
        await eventually(lambda: counts()[0] <= before[0])
        assert counts()[1] <= before[1]


@looped
async def test_a_server_that_stands_still_is_noticed_and_nothing_grows_meanwhile(
    server: NatsServer,
) -> None:
    async with up(server, ping_interval=0.2) as bus:
        got: list[bytes] = []
        await bus.subscribe("s", lambda message: got.append(message.data))
        bucket = await bus.bucket("b")
        before = counts()
        server.stand_still()
        asked = asyncio.ensure_future(bus.request("s", b"?", timeout_s=seconds(HANG_S * 4)))
        put = asyncio.ensure_future(bucket.put({"k": b"", "l": b""}))
        sent: list[bytes] = []

        async def flood() -> None:
            for _ in range(10_000):
                await bus.publish("s", bytes(100_000))
                sent.append(b"")

        with pytest.raises(BusDown):
            await flood()
        link_bytes = limits.BUS_MAX_PENDING_BYTES + 64 * 1024 * 1024  # what the system buffers, at most
        assert len(sent) * 100_000 < link_bytes
        for waiting in (asked, put):
            with pytest.raises(BusDown):
                await waiting
        assert not bus.is_up
        await asyncio.sleep(seconds(0.5))  # some attempts
        server.go_on()
        await eventually(lambda: bus.is_up)
        got.clear()
        await bus.publish("s", b"again")
        await eventually(lambda: b"again" in got)
        await eventually(lambda: counts()[0] <= before[0])
        assert counts()[1] <= before[1]


@looped
async def test_a_subscription_returns_only_when_the_server_has_it(server: NatsServer) -> None:
    async with up(server) as bus:
        got: list[BusMessage] = []
        server.stand_still()
        subscribing = asyncio.ensure_future(bus.subscribe("s", got.append))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not subscribing.done()
        server.go_on()
        await subscribing
        await bus.publish("s", b"")
        await eventually(lambda: got)


@looped
async def test_entries_that_expire_are_gone_with_the_server_and_the_watch_says_so(
    server: NatsServer,
) -> None:
    async with up(server) as bus:
        bucket = await bus.bucket("presence", expiry_s=60)
        changes: list[tuple[str, bytes | None]] = []
        await bucket.watch("k", lambda key, value: changes.append((key, value)))
        await bucket.put({"k.1": b"1", "k.2": b"2"})
        await eventually(lambda: len(changes) == 2)
        server.kill()
        await eventually(lambda: not bus.is_up)
        server.start()
        await eventually(lambda: bus.is_up)
        assert sorted(changes[2:]) == [("k.1", None), ("k.2", None)]
        await bucket.put({"k.1": b"1"})
        await eventually(lambda: changes[4:] == [("k.1", b"1")])


@looped
async def test_a_bus_that_is_closed_leaves_no_task_and_no_descriptor(server: NatsServer) -> None:
    for round_ in range(6):
        if round_ == 1:
            before = counts()  # the first one opens what the process keeps
        bus = NatsBus(server.url)
        await bus.start()
        await bus.subscribe("s", lambda message: None)
        await (await bus.bucket("b")).watch("k", lambda key, value: None)
        asked = asyncio.ensure_future(bus.request("s", b"", timeout_s=seconds(HANG_S * 4)))
        await settle()
        if round_ == 3:
            server.kill()
        await bus.close()
        with pytest.raises(BusDown):
            await asked
        if round_ == 3:
            server.start()
            server.wait_ready()
    await settle()
    assert counts() == before


@looped
async def test_a_bus_can_be_closed_at_any_moment_of_a_connection_attempt(server: NatsServer) -> None:
    for url in (server.url, f"nats://127.0.0.1:{free_port()}"):
        for turns in range(1, 60):
            bus = NatsBus(url)
            starting = asyncio.ensure_future(bus.start())
            await settle(turns)
            async with asyncio.timeout(seconds(LONG_S)):
                await bus.close()
                await starting
            assert not bus.is_up


# -- too much, too long ------------------------------------------------------------------------


@pytest.mark.slow
@looped
async def test_a_reader_that_is_too_slow_loses_messages_and_no_memory_and_the_watch_catches_up(
    tmp_path: Path,
) -> None:
    server = NatsServer(tmp_path, max_pending=1_100_000)
    server.start()
    server.wait_ready()
    flood = """
import asyncio, sys
from p2pcore.fleet.nats_bus import NatsBus
async def main():
    async with NatsBus(sys.argv[1]) as bus:
        bucket = await bus.bucket("b")
        for n in range(60):
            for _ in range(50):
                await bus.publish("s", bytes(10_000))
            await bucket.put({f"k.{m}": b"%d" % n for m in range(20)})
        print("done", flush=True)
asyncio.run(main())
"""
    try:
        async with up(server) as bus:
            bucket = await bus.bucket("b")
            table: dict[str, bytes | None] = {}
            states: list[bool] = []
            sizes: list[int] = []
            await bucket.watch("k", table.__setitem__)

            def deliver(message: BusMessage) -> None:
                time.sleep(0.002)
                sizes.append(resident_bytes())

            subscription = await bus.subscribe("s", deliver)
            bus.on_state(states.append)
            before = resident_bytes()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", flood, server.url, stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            assert await process.stdout.readline() == b"done\n"
            subscription.close()
            await process.wait()
            while "k.end" not in table:
                with contextlib.suppress(BusDown):  # we learn only now that the server shut us out
                    await bucket.put({"k.end": b""})
                await asyncio.sleep(0.05)
            assert states[:2] == [False, True], "the server did not shut the reader out"
            assert table == await bucket.get("k")
            assert len(sizes) < 3_000, "the reader was not slow"
            assert max(sizes) - before < 50_000_000
    finally:
        server.kill()


@looped
async def test_a_metric_counts_what_a_process_did_not_take_in_time(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with up(server) as bus, up(server) as other, Host(**BARE) as host, Fleet(host, bus):
        assert "p2pcore_fleet_bus_dropped_total 0" in host.metrics.text()
        monkeypatch.setattr(limits, "BUS_MAX_UNREAD", 2)
        kept: list[BusMessage] = []
        await bus.subscribe("s", kept.append)
        for _ in range(100):
            await other.publish("s", b"")
        await eventually(lambda: len(kept) + bus.num_dropped == 100)
        assert bus.num_dropped > 0
        assert f"p2pcore_fleet_bus_dropped_total {bus.num_dropped}" in host.metrics.text()


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


@looped
async def test_what_is_longer_than_the_server_allows_is_an_error_with_its_limit(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, max_payload=10_000)
    server.start()
    server.wait_ready()
    try:
        async with up(server) as bus:
            kept: list[BusMessage] = []
            await bus.subscribe("s", kept.append)
            for call in (
                lambda: bus.publish("s", bytes(10_001)),
                lambda: bus.request("s", bytes(10_001), timeout_s=1),
            ):
                with pytest.raises(LimitExceeded, match=r"max_payload of the NATS server: 10001 .* 10000"):
                    await call()
            asked = asyncio.ensure_future(bus.request("s", b"", timeout_s=seconds(LONG_S)))
            await eventually(lambda: kept)
            assert kept[0].answer is not None
            kept[0].answer(bytes(10_001))
            await settle()
            kept[0].answer(b"short")
            assert await asked == b"short"
            assert bus.is_up
    finally:
        server.kill()


# -- buckets -----------------------------------------------------------------------------------


@looped
async def test_the_last_process_that_says_an_expiry_sets_it(server: NatsServer) -> None:
    async with up(server) as a, up(server) as b:
        bucket = await a.bucket("b", expiry_s=1000)
        await bucket.put({"k": b""})
        await b.bucket("b", expiry_s=1)
        while await bucket.get("k"):  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0.05)


@looped
async def test_a_bucket_that_changes_between_memory_and_files_is_refused(server: NatsServer) -> None:
    async with up(server) as bus:
        await bus.bucket("b")
        with pytest.raises(BusError, match=r"JetStream refuses STREAM.UPDATE.KV_b: .*storage"):
            await bus.bucket("b", expiry_s=5)
        assert bus.is_up


@looped
async def test_many_entries_cost_few_answers(server: NatsServer) -> None:
    async with up(server) as bus:
        bucket = await bus.bucket("b", expiry_s=60)
        stats = bus.link()._client.stats
        for count, most in ((1, 1), (2, 2), (50, 2), (1000, 6)):
            before = stats["in_msgs"]
            await bucket.put({f"k.{n}": b"v" for n in range(count)})
            assert stats["in_msgs"] - before <= most


@looped
async def test_a_batch_of_which_a_part_is_missing_is_sent_again(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with up(server) as bus:
        bucket = await bus.bucket("b", expiry_s=60)
        real = bus.link().send_all
        lost = [b"2", b"3"]

        async def send_all(messages: Any) -> None:
            arrived = []
            for message in messages:
                if message[1] in lost:
                    lost.remove(message[1])
                else:
                    arrived.append(message)
            await real(arrived)

        monkeypatch.setattr(bus.link(), "send_all", send_all)
        await bucket.put({f"k.{n}": b"%d" % n for n in range(5)})
        assert lost == []
        assert await bucket.get("k") == {f"k.{n}": b"%d" % n for n in range(5)}
        lost += [b"3"] * limits.BUS_PUT_ATTEMPTS
        with pytest.raises(BusError, match=r"NATS stored [0-9] of 5 entries"):
            await bucket.put({f"k.{n}": b"%d" % n for n in range(5)})


@looped
async def test_a_stream_that_somebody_deleted_is_made_again(server: NatsServer) -> None:
    async with up(server) as bus:
        bucket = await bus.bucket("b")
        for entries in ({"k": b"1"}, {"k": b"1", "l": b"2"}):
            await bus.link().jetstream("STREAM.DELETE.KV_b", {})
            assert await bucket.get("k") == {}
            await bus.link().jetstream("STREAM.DELETE.KV_b", {})
            await bucket.put(entries)
            assert await bucket.get("k") == {"k": b"1"}


@looped
async def test_a_watch_whose_consumer_died_or_missed_a_message_begins_again(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BUS_HEARTBEAT_S", 0.2)
    monkeypatch.setattr(limits, "BUS_LOOK_S", 0.1)
    async with up(server) as bus:
        bucket = await bus.bucket("b")
        table: dict[str, bytes | None] = {}
        changes: list[str] = []

        def changed(key: str, value: bytes | None) -> None:
            changes.append(key)
            table[key] = value

        await bucket.put({"k.0": b"", "k.gone": b""})
        await bucket.watch("k", changed)
        [watch] = bus._watches
        names = await bus.link().jetstream("CONSUMER.NAMES.KV_b", {})
        for name in names["consumers"]:
            await bus.link().jetstream(f"CONSUMER.DELETE.KV_b.{name}", {})
        await bucket.put({"k.1": b"1", "k.gone": None})
        await eventually(lambda: table.get("k.1") == b"1")
        assert table["k.gone"] is None
        consumer = watch._consumer
        assert consumer is not None
        consumer._next += 1
        await bucket.put({"k.2": b"2"})
        await eventually(lambda: table.get("k.2") == b"2")
        assert watch._consumer is not consumer
        assert sorted(changes) == ["k.0", "k.1", "k.2", "k.gone", "k.gone"], "a change was told twice"


@looped
async def test_a_watch_whose_last_pending_entry_goes_is_complete_all_the_same(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BUS_HEARTBEAT_S", 0.2)
    async with up(server) as bus:
        bucket = await bus.bucket("b")
        await bucket.put({"k": b""})
        real = bus.link().jetstream

        async def jetstream(api: str, request: Any) -> dict[str, Any]:
            answer = await real(api, request)
            if api.startswith("CONSUMER.CREATE"):
                answer["num_pending"] += 1
            return answer

        monkeypatch.setattr(bus.link(), "jetstream", jetstream)
        told: list[str] = []
        await bucket.watch("nothing", lambda key, value: told.append(key))
        assert told == []


@looped
async def test_a_closed_watch_is_gone_from_the_server_at_once(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BUS_CONSUMER_EXPIRY_S", 10_000.0)
    async with up(server) as bus:
        bucket = await bus.bucket("b")
        (await bucket.watch("k", lambda key, value: None)).close()
        await bucket._get_by_watch(bus.link(), "k")  # type: ignore[attr-defined]
        while (await bus.link().jetstream("CONSUMER.NAMES.KV_b", {}))["consumers"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@looped
async def test_cancelled_calls_leave_nothing_behind(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BUS_CONSUMER_EXPIRY_S", 1.0)  # for one that is made after its deletion
    async with up(server) as bus:
        bucket = await bus.bucket("b")
        await bus.subscribe("s", lambda message: None)
        await bucket.put({f"k.{n}": b"" for n in range(1500)})
        await settle()
        num_subs, num_tasks = len(bus.link()._subs), counts()[0]
        verbs: list[Callable[[], Any]] = [
            lambda: bus.publish("s", b""),
            lambda: bus.request("s", b"", timeout_s=seconds(LONG_S)),
            lambda: bus.subscribe("t", lambda message: None),
            lambda: bus.bucket("c"),
            lambda: bucket.put({f"k.{n}": b"" for n in range(1500)}),
            lambda: bucket.get("k"),
            lambda: bucket.watch("k", lambda key, value: None),
        ]
        for verb in verbs:
            for turns in range(40):
                task = asyncio.ensure_future(verb())
                await settle(turns)
                if not task.done():
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                elif hasattr(task.result(), "close"):
                    task.result().close()
        await settle()
        await eventually(lambda: counts()[0] <= num_tasks)
        assert len(bus.link()._subs) == num_subs
        assert (bus.link()._waiting, bus._watches, len(bus._subscriptions)) == ({}, {}, 1)
        while (await bus.link().jetstream("CONSUMER.NAMES.KV_b", {}))["consumers"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.slow
@looped
async def test_a_server_that_is_killed_finds_no_deleted_or_overwritten_entry_again(
    server: NatsServer,
) -> None:
    async with up(server) as bus:
        bucket = await bus.bucket("b")
        for value in (b"1", b"2"):
            await bucket.put({f"k.{n}": value for n in range(200)})
        await bucket.put({f"k.{n}": None for n in range(190)})
        await asyncio.sleep(limits.BUS_MARKER_S + 2)  # so long the server keeps notes that it forgets
        server.kill()
        await eventually(lambda: not bus.is_up)
        server.start()
        await eventually(lambda: bus.is_up)
        assert await bucket.get("k") == {f"k.{n}": b"2" for n in range(190, 200)}


@looped
async def test_deleted_and_expired_entries_leave_nothing_in_the_memory_of_the_server(
    server: NatsServer,
) -> None:
    async with up(server) as bus:
        bucket = await bus.bucket("short", expiry_s=1)
        await bucket.put({f"k.{n}": b"" for n in range(100)})
        await bucket.put({f"k.{n}": None for n in range(50)})
        info = "STREAM.INFO.KV_short"
        while (await bus.link().jetstream(info, {}))["state"]["messages"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


# -- a cluster ---------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[NatsServer]]:
    """Three servers that know each other."""
    ports = [free_port() for _ in range(3)]
    routes = [f"nats://127.0.0.1:{port}" for port in ports]
    made = []
    for number, port in enumerate(ports):
        folder = tmp_path / str(number)
        folder.mkdir()
        settings = {"name": "c", "listen": f"127.0.0.1:{port}", "routes": routes}
        made.append(NatsServer(folder, server_name=f"n{number}", cluster=settings))
    for server in made:
        server.start()
    for server in made:
        server.wait_ready()
    yield made
    for server in made:
        server.kill()


@pytest.mark.slow
@looped
async def test_a_cluster_loses_a_server_and_no_entry(cluster: list[NatsServer]) -> None:
    urls = [server.url for server in cluster]
    async with NatsBus(urls, replicas=3) as a, NatsBus(urls, replicas=3) as b:
        await eventually(lambda: a.is_up and b.is_up)

        async def tried(call: Callable[[], Awaitable[Any]]) -> Any:
            """Servers that elect a leader do not answer for some seconds."""
            while True:
                with contextlib.suppress(BusError):
                    return await call()
                await asyncio.sleep(0.1)

        lasting = await tried(lambda: a.bucket("lasting"))
        short = await tried(lambda: a.bucket("short", expiry_s=600))
        tables: dict[str, dict[str, bytes | None]] = {"lasting": {}, "short": {}}
        for name, table in tables.items():
            expiry = 600 if name == "short" else None
            theirs = await tried(lambda name=name, expiry=expiry: b.bucket(name, expiry_s=expiry))
            await tried(lambda theirs=theirs, table=table: theirs.watch("k", table.__setitem__))
        expected: dict[str, bytes | None] = {f"k.{n}": b"%d" % n for n in range(600)}
        for bucket in (lasting, short):
            await tried(lambda bucket=bucket: bucket.put(expected))
        port = a.link()._client.connected_url.port  # type: ignore[union-attr]
        [victim] = [server for server in cluster if server.port == port]
        victim.kill()
        more: dict[str, bytes | None] = {"k.0": b"new", "k.x": b""}
        for bucket in (lasting, short):
            await tried(lambda bucket=bucket: bucket.put(more))
            while await tried(lambda bucket=bucket: bucket.get("k")) != expected | more:  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # another server may answer, a moment behind
        await eventually(lambda: tables == {"lasting": expected | more, "short": expected | more})
        assert a.link()._client.connected_url.port != port  # type: ignore[union-attr]
