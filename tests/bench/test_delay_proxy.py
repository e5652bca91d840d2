"""The delaying proxy: every byte, in order, not before its time.

Comes in: sockets of this process, a clock the test moves. Goes out: claims about what arrives and when.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from harness import HANG_S, seconds

pytestmark = pytest.mark.source
delay_proxy = pytest.importorskip("delay_proxy", reason="bench/ is not there")

Ends = tuple[socket.socket, socket.socket, socket.socket, socket.socket]
DELAY_S = 0.03
TIMEOUT_S = seconds(HANG_S)


class Clock:
    """Time as the test wants it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(delay_proxy, "perf_counter", made)
    return made


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The sender, the two ends a Direction is given, and the receiver."""
    sender, source = socket.socketpair()
    sink, receiver = socket.socketpair()
    for sock in (source, sink, receiver):
        sock.setblocking(False)
    yield sender, source, sink, receiver
    for sock in (sender, source, sink, receiver):
        sock.close()


def arrived(sock: socket.socket) -> bytes | None:
    """What is there now; None if nothing is."""
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return None


def test_bytes_leave_when_the_delay_is_over_and_not_before(clock: Clock, ends: Ends) -> None:
    sender, source, sink, receiver = ends
    pool = delay_proxy.Pool()
    way = delay_proxy.Direction(source, sink, DELAY_S, 0.0)
    sender.send(b"hello")
    way.read(pool)
    assert way.due == clock.now + DELAY_S
    way.write(clock.now + DELAY_S - 0.001, pool)
    assert arrived(receiver) is None
    way.write(clock.now + DELAY_S, pool)
    assert arrived(receiver) == b"hello"
    assert way.held == 0


def test_bytes_of_one_moment_leave_together_and_later_ones_wait(clock: Clock, ends: Ends) -> None:
    sender, source, sink, receiver = ends
    pool = delay_proxy.Pool()
    way = delay_proxy.Direction(source, sink, DELAY_S, 0.0)
    for data, later in ((b"a", 0.0), (b"b", 0.0001), (b"c", 0.01)):
        clock.now += later
        sender.send(data)
        way.read(pool)
    way.write(100.0 + DELAY_S, pool)
    assert arrived(receiver) == b"ab"
    way.write(clock.now + DELAY_S, pool)
    assert arrived(receiver) == b"c"


def test_what_comes_during_the_handshake_waits_for_its_end(clock: Clock, ends: Ends) -> None:
    sender, source, sink, _ = ends
    way = delay_proxy.Direction(source, sink, DELAY_S, clock.now + 3 * DELAY_S)
    sender.send(b"x")
    way.read(delay_proxy.Pool())
    assert way.due == clock.now + 3 * DELAY_S


def test_the_end_comes_after_the_bytes_before_it(clock: Clock, ends: Ends) -> None:
    sender, source, sink, receiver = ends
    pool = delay_proxy.Pool()
    way = delay_proxy.Direction(source, sink, DELAY_S, 0.0)
    sender.send(b"last")
    way.read(pool)
    sender.close()
    way.read(pool)
    assert way.ended
    assert not way.wants_bytes
    way.write(clock.now, pool)
    assert not way.done
    way.write(clock.now + DELAY_S, pool)
    assert way.done
    assert arrived(receiver) == b"last"
    assert arrived(receiver) == b""


def test_a_direction_holds_no_more_than_its_bound(
    clock: Clock, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, source, sink, _ = ends
    monkeypatch.setattr(delay_proxy, "MAX_HELD_BYTES", 10)
    way = delay_proxy.Direction(source, sink, DELAY_S, 0.0)
    sender.send(bytes(9))
    way.read(delay_proxy.Pool())
    assert way.wants_bytes
    sender.send(bytes(1))
    way.read(delay_proxy.Pool())
    assert not way.wants_bytes


def test_chunks_are_used_again() -> None:
    pool = delay_proxy.Pool()
    chunk = pool.take(1.0)
    chunk.size = 7
    pool.give(chunk)
    again = pool.take(2.0)
    assert again is chunk
    assert (again.due, again.size) == (2.0, 0)


class Echo:
    """A listener that gives everything back until the end, one connection after another."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.socket.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                conn, _ = self.socket.accept()
            except OSError:
                return
            with conn:
                while data := conn.recv(1 << 16):
                    conn.sendall(data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.socket.shutdown(socket.SHUT_RDWR)  # wakes its thread, which `close` does not
    made.socket.close()


def serve(target: tuple[str, int]) -> int:
    """The port of a proxy to `target` in a thread of this process."""
    proxy = delay_proxy.Proxy(target, 0.002)
    threading.Thread(target=proxy.run, daemon=True).start()
    port: int = proxy.port
    return port


def test_nothing_is_lost_or_reordered_through_a_proxy(echo: Echo) -> None:
    message = bytes(range(251)) * 20_000
    with socket.create_connection(("127.0.0.1", serve(echo.address)), timeout=TIMEOUT_S) as client:

        def send() -> None:
            client.sendall(message)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        got = bytearray()
        while data := client.recv(1 << 20):
            got += data
        sender.join()
    assert got == message


def test_a_proxy_outlives_a_listener_that_is_not_there() -> None:
    with socket.socket() as bound:  # and not listening, so that nobody else can
        bound.bind(("127.0.0.1", 0))
        refuse_through(serve(bound.getsockname()))


def refuse_through(port: int) -> None:
    """Two connections through a proxy, each ended without a byte."""
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as client:
            assert client.recv(1) == b""
