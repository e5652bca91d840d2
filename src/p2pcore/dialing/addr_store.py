"""The file of an address book: an SQLite database, read once and then only written.

Comes in: rows of peers that have changed. Goes out: the rows of the last run, or AddrBookError. Each write is
one transaction on a connection of its own, so that it may run in any thread. To open and to load only reads,
and hardly waits for other programs. Never keeps the file open, never changes a file that is no address book.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

from p2pcore import limits
from p2pcore.dialing.book_file import Row
from p2pcore.errors import AddrBookError

APPLICATION_ID = 0x70327062
"""Marks the file as ours ("p2pb"), in SQLite's header."""
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
SCHEMA_VERSION = 1
"""Grows with each change of the tables below. A newer file is refused, not guessed at."""

_TABLES = """
CREATE TABLE addrs (
    peer BLOB NOT NULL,      -- the multihash
    addr BLOB NOT NULL,      -- a multiaddr, in its binary form
    source INTEGER NOT NULL, -- AddrSource
    until REAL,              -- unix seconds; NULL: for ever
    PRIMARY KEY (peer, addr)
) WITHOUT ROWID;
CREATE TABLE records (
    peer BLOB PRIMARY KEY,
    seq TEXT NOT NULL,       -- 64 bits without a sign, which INTEGER cannot hold
    envelope BLOB NOT NULL
) WITHOUT ROWID;
"""


class AddrStore:
    """One file. It is made if it is missing, and checked.

    Raises: AddrBookError: it is damaged, is something else, is of a newer p2pcore, is locked, or cannot be
        opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._loaded_at: float | None = None
        with self._opened(limits.BOOK_OPEN_BUSY_S) as db:
            self._check(db)

    @contextmanager
    def _opened(self, busy_s: float) -> Iterator[sqlite3.Connection]:
        """A connection; its changes are committed at the end. Raises AddrBookError.

        `busy_s`: seconds that each statement waits for a lock of another program.
        """
        try:
            with closing(sqlite3.connect(self.path, timeout=busy_s)) as db, db:
                yield db
        except sqlite3.OperationalError as error:
            kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the other bytes are details
            is_locked = kind in _LOCKED
            reason = f"another program uses it, also after {busy_s:g} s" if is_locked else str(error)
            raise AddrBookError(self.path, reason, is_locked) from error
        except (sqlite3.Error, OverflowError, TypeError, ValueError) as error:
            raise AddrBookError(self.path, str(error)) from error

    def _check(self, db: sqlite3.Connection) -> None:
        """Makes the tables of an empty file. Raises AddrBookError."""
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (num_tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not application and not num_tables:
            db.executescript(
                f"BEGIN; {_TABLES} PRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        elif application != APPLICATION_ID:
            raise AddrBookError(self.path, "it is a database of another program")
        elif version != SCHEMA_VERSION:
            raise AddrBookError(
                self.path, f"it has version {version}, and this p2pcore reads version {SCHEMA_VERSION}"
            )
        elif (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise AddrBookError(self.path, f"it is damaged: {found}")

    def load(self, now: float) -> list[Row]:
        """The peers with addresses that are still believed at `now`; those believed longest come last.

        The first write removes all others from the file. Raises AddrBookError.
        """
        self._loaded_at = now
        with self._opened(limits.BOOK_OPEN_BUSY_S) as db:
            db.execute("BEGIN")  # both tables as they are at one moment
            peers: dict[bytes, list[tuple[bytes, int, float | None]]] = {}
            rows = db.execute(
                "SELECT * FROM (SELECT peer, addr, source, until FROM addrs WHERE until IS NULL OR until > ? "
                "ORDER BY until IS NULL DESC, until DESC LIMIT ?) ORDER BY until IS NULL, until",
                (now, limits.MAX_BOOK_PEERS * limits.MAX_BOOK_ADDRS),
            )
            for peer, addr, source, until in rows:
                peers.setdefault(peer, []).append((addr, source, until))
            records = {
                peer: (int(seq), envelope)
                for peer, seq, envelope in db.execute("SELECT * FROM records")
                if peer in peers
            }
        return [Row(peer, tuple(addrs), *records.get(peer, (-1, None))) for peer, addrs in peers.items()]

    def write(self, rows: Iterable[Row]) -> None:
        """Replaces all that the file has of these peers. It waits for the disk. Raises AddrBookError."""
        with self._opened(limits.BOOK_BUSY_S) as db:
            self._purge(db)
            for row in rows:
                db.execute("DELETE FROM addrs WHERE peer = ?", (row.peer,))
                db.execute("DELETE FROM records WHERE peer = ?", (row.peer,))
                db.executemany(
                    "INSERT INTO addrs VALUES (?, ?, ?, ?)", ((row.peer, *addr) for addr in row.addrs)
                )
                if row.envelope is not None and row.addrs:
                    db.execute("INSERT INTO records VALUES (?, ?, ?)", (row.peer, str(row.seq), row.envelope))
        self._loaded_at = None

    def _purge(self, db: sqlite3.Connection) -> None:
        """Removes what `load` found to be over. Once: later the book itself says what it forgets."""
        if self._loaded_at is not None:
            db.execute("DELETE FROM addrs WHERE until <= ?", (self._loaded_at,))
            db.execute("DELETE FROM records WHERE peer NOT IN (SELECT peer FROM addrs)")
