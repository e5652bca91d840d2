"""The ports of a supervisor: claimed once, and one listening socket for each worker on each of them.

Comes in: addresses to listen on. Goes out: real addresses, and listening sockets to hand to workers. The
sockets stay open here while workers come and go, so what the kernel has queued for one that ended is served
by the next. Never accepts anything itself.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from p2pcore.errors import AddressError, ListenError, NoTransport
from p2pcore.multiaddr import Multiaddr
from p2pcore.transports.malistener import open_bound, open_listening
from p2pcore.transports.sockaddr import Endpoint, parse_endpoint, to_multiaddr


class Ports:
    """Addresses bound, and nothing queued on them: only listening sockets get connections.

    Args:
        addrs: where to listen; port 0 takes a free one, once.
        backlog: connections the kernel may queue for each worker.

    Attributes:
        addrs: as bound, wildcards as they are.
        failures: (address, error) of what could not be bound.

    Raises:
        ListenError: none could be bound; `causes` has each.
    """

    def __init__(self, addrs: Iterable[Multiaddr], backlog: int) -> None:
        self._backlog = backlog
        self._claims: list[socket.socket] = []
        self.failures: list[tuple[Multiaddr, Exception]] = []
        for addr in addrs:
            try:
                self._claims.append(_claim(addr))
            except (OSError, AddressError) as error:
                self.failures.append((addr, error))
        if not self._claims:
            texts = "; ".join(f"{addr}: {error}" for addr, error in self.failures)
            failure = ListenError(f"cannot listen on any address: {texts}")
            failure.causes = tuple(self.failures)
            raise failure
        self.addrs = [to_multiaddr(claim.getsockname()) for claim in self._claims]

    def open_sockets(self) -> list[socket.socket]:
        """One more listening socket on each address, for one worker. Raises OSError."""
        opened: list[socket.socket] = []
        try:
            for addr in self.addrs:
                opened.append(open_listening(parse_endpoint(addr), True, self._backlog))
        except BaseException:
            close_all(opened)
            raise
        return opened

    def close(self) -> None:
        """Gives the ports up. Idempotent."""
        close_all(self._claims)


def close_all(sockets: list[socket.socket]) -> None:
    """Closes and forgets `sockets`; where a worker holds one too, the kernel's socket lives on."""
    while sockets:
        sockets.pop().close()


def _claim(addr: Multiaddr) -> socket.socket:
    """A socket bound with SO_REUSEPORT. Raises NoTransport, AddressError, OSError.

    The kernel would let two supervisors of one user share a port in silence: it is bound exclusively first.
    """
    try:
        endpoint: Endpoint = parse_endpoint(addr)
    except AddressError as error:
        raise NoTransport(f"no transport for {addr}") from error
    if endpoint.peer is not None:
        raise AddressError(f"{addr}: one listens without a peer id")
    if endpoint.port:
        open_listening(endpoint, reuse_port=False, backlog=1).close()
    return open_bound(endpoint, reuse_port=True)
