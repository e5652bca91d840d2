"""A TCP path with delay, in user space: bytes come out later, in order, and as fast as they came in.

Comes in: connections on its port. Goes out: the same bytes to `--to`, each `--delay-ms` after it
was read; nothing is lost, reordered or slowed down. The kernel completes a TCP handshake here at once. The
proxy adds the time for it: the listener sees a connection and its first bytes three delays after the client
made it. Never holds more than MAX_HELD_BYTES for a direction of a connection. As a script it prints `PORT
n`.
"""

from __future__ import annotations

import argparse
import select
import socket
from collections import deque
from time import perf_counter

CHUNK_BYTES = 1 << 18
MAX_HELD_BYTES = 1 << 26
"""For one direction of one connection: 30 ms at 2 GB/s. If this is full, the proxy is the bottleneck."""
SOCKET_BYTES = 4 << 20
"""Buffers of each socket, if the system allows it, so that only the proxy delays, not the kernel."""
BACKLOG = 1024
POOL = 256
"""Free chunks kept: 64 MiB."""
GATHER_S = 0.0005
"""Bytes read within this time share a chunk and leave together."""


class Chunk:
    """Bytes that leave at `due`: the first `size` of `data`."""

    __slots__ = ("data", "due", "size")

    def __init__(self) -> None:
        self.data = memoryview(bytearray(CHUNK_BYTES))
        self.due, self.size = 0.0, 0


class Pool:
    """Chunks for reuse: a fresh chunk of this size costs a page fault for every 4 KiB."""

    def __init__(self) -> None:
        self._free: list[Chunk] = []

    def take(self, due: float) -> Chunk:
        """An empty chunk."""
        chunk = self._free.pop() if self._free else Chunk()
        chunk.due, chunk.size = due, 0
        return chunk

    def give(self, chunk: Chunk) -> None:
        """Takes a chunk back."""
        if len(self._free) < POOL:
            self._free.append(chunk)


class Direction:
    """Bytes from one socket to another, each held for the delay."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay_s: float, earliest: float) -> None:
        self.source, self.sink = source, sink
        self.ended = self.done = self.blocked = False
        self.held = 0
        self._delay_s, self._earliest = delay_s, earliest
        self._chunks: deque[Chunk] = deque()
        self._sent = 0  # of the first chunk

    @property
    def wants_bytes(self) -> bool:
        """True while the source may be read."""
        return not self.ended and self.held < MAX_HELD_BYTES

    @property
    def due(self) -> float | None:
        """When something has to be done next; None if a socket will say."""
        return self._chunks[0].due if self._chunks and not self.blocked else None

    def read(self, pool: Pool) -> None:
        """Reads from the source. The end of input is an empty chunk, so it is delayed too."""
        due = max(perf_counter() + self._delay_s, self._earliest)
        last = self._chunks[-1] if self._chunks else None
        gather = last is not None and last.size < CHUNK_BYTES and due - last.due < GATHER_S
        chunk = last if last is not None and gather else pool.take(due)
        try:
            size = self.source.recv_into(chunk.data[chunk.size :])
        except BlockingIOError:
            return
        if size == 0 and chunk.size:
            chunk = pool.take(due)
        if chunk is not last:
            self._chunks.append(chunk)
        self.ended = size == 0
        chunk.size += size
        self.held += size

    def write(self, now: float, pool: Pool) -> None:
        """Writes to the sink the bytes that are due."""
        self.blocked = False
        while self._chunks and self._chunks[0].due <= now:
            chunk = self._chunks[0]
            try:
                if chunk.size:
                    self._sent += self.sink.send(chunk.data[self._sent : chunk.size])
                else:
                    self.sink.shutdown(socket.SHUT_WR)
                    self.done = True
            except BlockingIOError:
                self.blocked = True
                return
            if self._sent == chunk.size:
                self._chunks.popleft()
                pool.give(chunk)
                self.held -= chunk.size
                self._sent = 0


class Path:
    """A client's connection, and the one to the listener, which is made when the handshake would end."""

    def __init__(self, client: socket.socket, delay_s: float) -> None:
        self.client, self.server = client, _new_socket()
        self.opens = perf_counter() + 3 * delay_s
        self.is_open = False
        self.up = Direction(self.client, self.server, delay_s, self.opens)
        self.down = Direction(self.server, self.client, delay_s, 0.0)
        self.masks = {self.client.fileno(): 0, self.server.fileno(): 0}

    def wanted(self) -> dict[int, int]:
        """Events to wait for, by descriptor."""
        client = select.EPOLLIN * self.up.wants_bytes | select.EPOLLOUT * self.down.blocked
        server = select.EPOLLIN * self.down.wants_bytes | select.EPOLLOUT * self.up.blocked
        return {self.client.fileno(): client, self.server.fileno(): server * self.is_open}

    @property
    def due(self) -> float | None:
        """When something has to be done next; None if a socket will say."""
        if not self.is_open:
            return self.opens
        times = [due for way in (self.up, self.down) if (due := way.due) is not None]
        return min(times) if times else None

    def forward(self, target: tuple[str, int], now: float, pool: Pool) -> None:
        """Connects when it is time to, and writes what is due."""
        if not self.is_open and now >= self.opens:
            self.server.connect(target)
            _tune(self.server)
            self.is_open = True
        if self.is_open:
            self.up.write(now, pool)
            self.down.write(now, pool)


def _tune(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _new_socket() -> socket.socket:
    sock = socket.socket()
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
    return sock


class Proxy:
    """Accepts, delays and forwards until it is killed.

    Args:
        target: host and port of the listener.
        delay_s: of each direction; a round trip takes twice as long.
    """

    def __init__(self, target: tuple[str, int], delay_s: float) -> None:
        self._target, self._delay_s = target, delay_s
        self._listener = _new_socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(BACKLOG)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._paths: dict[int, Path] = {}
        self._pool = Pool()

    @property
    def port(self) -> int:
        """Where clients connect."""
        port: int = self._listener.getsockname()[1]
        return port

    def run(self) -> None:
        """Serves. Never returns."""
        while True:
            self.step()

    def step(self) -> None:
        """Waits for one thing to happen, and does it."""
        for descriptor, _ in self._epoll.poll(self._wait_s()):
            if descriptor == self._listener.fileno():
                self._accept()
            elif (path := self._paths.get(descriptor)) is not None:
                self._serve(path, descriptor)
        now = perf_counter()
        for path in set(self._paths.values()):
            self._forward(path, now)

    def _wait_s(self) -> float:
        """Until the next thing to do; -1 without any."""
        times = [due for path in self._paths.values() if (due := path.due) is not None]
        return max(0.0, min(times) - perf_counter()) if times else -1.0

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        _tune(client)
        path = Path(client, self._delay_s)
        for descriptor in path.masks:
            self._paths[descriptor] = path
        self._update(path)

    def _serve(self, path: Path, descriptor: int) -> None:
        way = path.up if descriptor == path.client.fileno() else path.down
        try:
            if way.wants_bytes:
                way.read(self._pool)
        except OSError:
            self._drop(path)

    def _forward(self, path: Path, now: float) -> None:
        try:
            path.forward(self._target, now, self._pool)
        except OSError:
            self._drop(path)
            return
        if path.up.done and path.down.done:
            self._drop(path)
        else:
            self._update(path)

    def _update(self, path: Path) -> None:
        """Waits only for events that are needed now; other sockets would report their end for ever."""
        wanted = path.wanted()
        for descriptor, mask in wanted.items():
            if not path.masks[descriptor] and mask:
                self._epoll.register(descriptor, mask)
            elif path.masks[descriptor] and not mask:
                self._epoll.unregister(descriptor)
            elif path.masks[descriptor] != mask:
                self._epoll.modify(descriptor, mask)
        path.masks = wanted

    def _drop(self, path: Path) -> None:
        """Ends both connections. Bytes held are lost, as on a broken path."""
        for descriptor, mask in path.masks.items():
            if self._paths.pop(descriptor, None) is not None and mask:
                self._epoll.unregister(descriptor)
        path.client.close()
        path.server.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A TCP path with delay.")
    parser.add_argument("--to", required=True, help="HOST:PORT of the listener")
    parser.add_argument("--delay-ms", type=float, default=30.0, help="each way")
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")
    proxy = Proxy((host, int(port)), options.delay_ms / 1e3)
    print(f"PORT {proxy.port}", flush=True)
    proxy.run()


if __name__ == "__main__":
    main()
