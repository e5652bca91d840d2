"""The file of an address book: what survives a restart, what is refused, and that the loop never waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import eventually, looped
from hosts import BARE
from p2pcore import AddrBook, AddrBookError, AddrSource, Host, PrivateKey, limits
from p2pcore.dialing.addr_store import AddrStore
from p2pcore.dialing.book_file import BookFile, Row
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.record import PeerRecord
from swarm_fakes import addr, peer

KEY = PrivateKey.from_seed(b"\x01" * 32)
THEM = KEY.peer_id()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "peers.db"


@looped
async def test_a_book_with_a_file_survives_a_restart(path: Path) -> None:
    raw = PeerRecord(THEM, 2**64 - 1, (addr(7, "5.6.7.8"),)).seal(KEY).raw
    async with Host(**BARE, addr_book=AddrBook(path)) as host:
        host.addr_book.add(peer(2), "/dns4/example.com/tcp/1")
        host.addr_book.add(peer(3), addr(1), ttl_s=0.001)
        host.addr_book.add_record(raw)
    book = AddrBook(path)
    assert set(book.peers()) == {THEM, peer(2)}
    assert [(each.source, each.expires_at) for each in book.entries(peer(2))] == [(AddrSource.USER, None)]
    assert (book.addrs(THEM), book.record(THEM)) == ([addr(7, "5.6.7.8")], raw)
    older = PeerRecord(THEM, 5, (addr(8),)).seal(KEY).raw
    book.add_record(older)
    assert book.record(THEM) == raw, "the number of the record is kept too"
    book.forget(THEM)
    await book.close()
    assert AddrBook(path).peers() == [peer(2)]


@looped
async def test_the_peers_that_are_connected_when_the_program_dies_are_not_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BOOK_WRITE_S", 0.01)
    async with Host() as other, Host(addr_book=AddrBook(path)) as host:
        await host.connect(other.addrs_with_peer[0])
        await host.identify(other.peer_id)
        await eventually(lambda: rows(path))
        assert AddrBook(path).addrs(other.peer_id) == other.addrs


def rows(path: Path) -> int:
    with sqlite3.connect(path) as db:
        (count,) = db.execute("SELECT count(*) FROM addrs").fetchone()
    db.close()
    return int(count)


def damaged(path: Path) -> None:
    AddrStore(path).write([Row(peer(n).to_bytes(), ((addr(n).to_bytes(), 4, None),)) for n in range(1, 200)])
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xa5" * 4096
    path.write_bytes(data)


def of_another_program(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
    db.close()


def newer(path: Path) -> None:
    AddrStore(path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b"\x00\x01" * 5000), "file is not a database"),
        (lambda path: path.mkdir(), "unable to open"),
        (damaged, "damaged|malformed"),
        (of_another_program, "another program"),
        (newer, "version 2, and this p2pcore reads version 1"),
    ],
)
def test_a_file_that_is_no_book_is_refused_and_left_as_it_is(path: Path, make: object, reason: str) -> None:
    make(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(AddrBookError, match=reason) as failed:
        AddrBook(path)
    assert str(path) in str(failed.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_rows_that_make_no_sense_are_left_out_with_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = (addr(1).to_bytes(), 4, None)
    store = AddrStore(path)
    store.write(
        [
            Row(b"no multihash", (good,)),
            Row(peer(1).to_bytes(), ((b"\xff\xff\xff", 4, None),)),
            Row(peer(2).to_bytes(), ((addr(1).to_bytes(), 99, None),)),
            Row(peer(3).to_bytes(), (good,)),
        ]
    )
    with caplog.at_level(logging.WARNING, "p2pcore.dialing.addr_book"):
        assert AddrBook(path).peers() == [peer(3)]
    assert [record.getMessage() for record in caplog.records] == [
        "3 peers of the address book cannot be read and are left out"
    ]


@looped
async def test_writes_are_gathered_and_run_beside_the_loop() -> None:
    written: list[tuple[threading.Thread, list[bytes]]] = []
    gate = threading.Event()

    def write(batch: list[Row]) -> None:
        gate.wait(30)
        written.append((threading.current_thread(), [row.peer for row in batch]))

    file = BookFile(write, lambda each: Row(each.to_bytes(), ()))
    peers = [peer(number % 250) for number in range(limits.BOOK_BATCH_PEERS + 40)]
    for each in peers + peers:
        file.changed(each)
    assert not written
    closing = asyncio.create_task(file.close())
    await asyncio.sleep(0)
    file.changed(peer(251))  # while a write is under way
    gate.set()
    await closing
    assert all(thread is not threading.current_thread() for thread, _ in written)
    assert [len(batch) for _, batch in written] == [250, 1]


@looped
async def test_a_write_that_fails_costs_one_warning_and_nothing_else(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = AddrBook(path)
    path.write_bytes(b"now it is something else" * 500)  # noqa: ASYNC240 - the test waits for nothing else
    with caplog.at_level(logging.WARNING, "p2pcore.dialing.addr_book"):
        for number in (1, 2):
            book.add(peer(number), addr(1))
            await book.close()
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    assert set(book.peers()) == {peer(1), peer(2)}


def test_a_book_may_be_filled_before_there_is_a_loop(path: Path) -> None:
    book = AddrBook(path)
    book.add(THEM, Multiaddr("/ip4/5.6.7.8/tcp/1"))
    asyncio.run(book.close())
    assert AddrBook(path).addrs(THEM) == [Multiaddr("/ip4/5.6.7.8/tcp/1")]


@looped
async def test_what_could_not_be_written_is_written_later(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "BOOK_WRITE_S", 0.01)
    written: list[bytes] = []
    fails = True

    def write(batch: list[Row]) -> None:
        if fails:
            raise AddrBookError("a file", "the disk is full")
        written.extend(row.peer for row in batch)

    file = BookFile(write, lambda each: Row(each.to_bytes(), ()))
    with caplog.at_level(logging.WARNING, "p2pcore.dialing.addr_book"):
        file.changed(peer(1))
        await eventually(lambda: caplog.records)
        await file.close()
        fails = False
        file.changed(peer(2))
        await eventually(lambda: len(written) == 2)
    assert written == [peer(1).to_bytes(), peer(2).to_bytes()]


@looped
async def test_what_waits_for_a_broken_disk_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BOOK_CHANGED", 10)
    tried: list[list[bytes]] = []

    def write(batch: list[Row]) -> None:
        tried.append([row.peer for row in batch])
        raise AddrBookError("a file", "the disk is full")

    file = BookFile(write, lambda each: Row(each.to_bytes(), ()))
    for number in range(30):
        file.changed(peer(number))
    for _ in range(2):
        await file.close()
    assert [len(each) for each in tried] == [30, 10]
    assert tried[1] == tried[0][-10:]


def test_a_row_with_a_time_that_is_no_number_is_left_out(path: Path) -> None:
    book = AddrBook(path)
    book.add(THEM, addr(1))
    asyncio.run(book.close())
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE addrs SET until = 'tomorrow'")
    assert AddrBook(path).peers() == []


# -- a file that another program uses ----------------------------------------------------------

LOCKS = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN " + sys.argv[2])
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def locked(path: Path, how: str) -> Iterator[None]:
    """Another process has locked the file. `how`: IMMEDIATE (it writes) or EXCLUSIVE (nobody may read)."""
    command = [sys.executable, "-c", LOCKS, str(path), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            process.stdin.close()


def test_a_file_that_another_process_has_locked_is_refused_at_once(path: Path) -> None:
    AddrBook(path)
    with locked(path, "EXCLUSIVE"), pytest.raises(AddrBookError, match="another program uses it") as failed:
        AddrBook(path)
    assert failed.value.is_locked
    assert limits.BOOK_OPEN_BUSY_S <= 0.1, "the event loop waits for so long"
    assert AddrBook(path).peers() == []


def test_a_new_file_that_another_process_has_locked_is_refused_at_once(path: Path) -> None:
    sqlite3.connect(path).close()
    with locked(path, "IMMEDIATE"), pytest.raises(AddrBookError, match="another program uses it"):
        AddrBook(path)


@looped
async def test_a_book_opens_while_another_process_writes_and_writes_when_that_has_ended(path: Path) -> None:
    store = AddrStore(path)
    store.write([Row(peer(1).to_bytes(), ((addr(1).to_bytes(), 4, None),))])
    with locked(path, "IMMEDIATE"):
        book = AddrBook(path)
        assert book.peers() == [peer(1)]
        book.add(peer(2), addr(2))
        closing = asyncio.create_task(book.close())
        await asyncio.sleep(0.05)
        assert not closing.done(), "the thread waits, and the loop does not"
    await closing
    assert set(AddrBook(path).peers()) == {peer(1), peer(2)}


def test_only_a_write_waits_long_for_another_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    connect = sqlite3.connect

    def noted(path: str, timeout: float) -> sqlite3.Connection:
        waits.append(timeout)
        return connect(path, timeout=timeout)

    monkeypatch.setattr(sqlite3, "connect", noted)
    store = AddrStore(path)
    store.load(0)
    store.write(())
    assert waits == [limits.BOOK_OPEN_BUSY_S, limits.BOOK_OPEN_BUSY_S, limits.BOOK_BUSY_S]


def test_the_first_write_removes_what_was_over_when_the_book_was_loaded(path: Path) -> None:
    old = Row(peer(1).to_bytes(), ((addr(1).to_bytes(), 4, 100.0),), 1, b"an envelope")
    AddrStore(path).write([old])
    store = AddrStore(path)
    assert store.load(100.0) == []
    assert rows(path) == 1, "to load only reads"
    store.write([Row(peer(2).to_bytes(), ((addr(2).to_bytes(), 4, None),))])
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT peer FROM addrs").fetchall() == [(peer(2).to_bytes(),)]
        assert db.execute("SELECT * FROM records").fetchall() == []


@looped
async def test_a_book_may_be_loaded_in_a_thread(path: Path) -> None:
    AddrStore(path).write([Row(peer(1).to_bytes(), ((addr(1).to_bytes(), 4, None),))])
    book = await asyncio.to_thread(AddrBook, path)
    async with Host(**BARE, addr_book=book) as host:
        host.addr_book.add(peer(2), addr(2))
    assert set(AddrBook(path).peers()) == {peer(1), peer(2)}
