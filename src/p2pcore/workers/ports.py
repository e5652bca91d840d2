"""The ports and files of a supervisor: claimed once, and a listening socket for each worker on each of them.

Comes in: addresses to listen on. Goes out: real addresses, and listening sockets to hand to workers. The
sockets stay open here while workers come and go, so what the kernel has queued for one that ended is served
by the next. Never accepts anything itself.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Protocol

from p2pcore.errors import AddressError, ListenError, NoTransport
from p2pcore.manet.listener import open_bound, open_listening
from p2pcore.manet.sockaddr import parse_endpoint, split_tcp, to_multiaddr
from p2pcore.transports.unix import file_of, open_unix, remove_unix, unix_path
from p2pcore.values.multiaddr import Multiaddr, check_local

_OVER_TCP = frozenset(("", "/ws", "/wss", "/tls/ws"))
_SNI = "/tls/sni/"


class _Claim(Protocol):
    """A port or a file that is ours."""

    def open_socket(self, backlog: int) -> socket.socket:
        """A listening socket on it for one worker. Raises OSError."""

    def stop(self) -> None:
        """Nobody may connect any more except through sockets that were handed out."""

    def close(self) -> None:
        """Gives it up."""


class _PortClaim:
    """A TCP port: bound and never listening, so that only the workers' own sockets get connections.

    The kernel would let two supervisors of one user share a port in silence: it is bound exclusively first.
    """

    def __init__(self, addr: Multiaddr) -> None:
        endpoint = parse_endpoint(addr)
        if endpoint.port:
            open_listening(endpoint, reuse_port=False, backlog=1).close()
        self._sock = open_bound(endpoint, reuse_port=True)
        self.addr = to_multiaddr(self._sock.getsockname())

    def open_socket(self, backlog: int) -> socket.socket:
        return open_listening(parse_endpoint(self.addr), True, backlog)

    def stop(self) -> None:
        """It does not listen."""

    def close(self) -> None:
        self._sock.close()


class _FileClaim:
    """A UNIX socket, which all workers share: the kernel has no SO_REUSEPORT for them."""

    def __init__(self, addr: Multiaddr, mode: int | None, backlog: int) -> None:
        check_local(addr)
        self._path = unix_path(addr)
        self._sock = open_unix(self._path, mode, backlog)
        self._file = file_of(self._path)
        self.addr = addr

    def open_socket(self, backlog: int) -> socket.socket:
        return self._sock.dup()

    def stop(self) -> None:
        if self._sock.fileno() >= 0:
            remove_unix(self._path, self._file)
            self._sock.close()

    def close(self) -> None:
        self.stop()


class Ports:
    """Addresses claimed, and nothing queued on ports: only the sockets of workers get connections.

    Args:
        addrs: where to listen; port 0 takes a free one, once. Several on one port share its socket.
        backlog: connections the kernel may queue for each worker.
        unix_mode: permissions of the files of UNIX addresses; None: as the umask says.

    Attributes:
        addrs: as bound, wildcards as they are.
        failures: (address, error) of what could not be bound.

    Raises:
        ListenError: none could be bound; `causes` has each.
    """

    def __init__(self, addrs: Iterable[Multiaddr], backlog: int, unix_mode: int | None = None) -> None:
        self._backlog = backlog
        self._unix_mode = unix_mode
        self._claims: dict[Multiaddr, _Claim] = {}
        self.addrs: list[Multiaddr] = []
        self.failures: list[tuple[Multiaddr, Exception]] = []
        for addr in addrs:
            try:
                self.addrs.append(self._claim(addr))
            except (OSError, AddressError) as error:
                self.failures.append((addr, error))
        if not self._claims:
            texts = "; ".join(f"{addr}: {error}" for addr, error in self.failures)
            failure = ListenError(f"cannot listen on any address: {texts}")
            failure.causes = tuple(self.failures)
            raise failure

    def open_sockets(self) -> list[socket.socket]:
        """One more listening socket on each port and file, for one worker. Raises OSError."""
        opened: list[socket.socket] = []
        try:
            for claim in self._claims.values():
                opened.append(claim.open_socket(self._backlog))
        except BaseException:
            close_all(opened)
            raise
        return opened

    def stop(self) -> None:
        """New connections reach only the sockets that were handed out. Idempotent."""
        for claim in self._claims.values():
            claim.stop()

    def close(self) -> None:
        """Gives everything up. Idempotent."""
        for claim in self._claims.values():
            claim.close()

    def _claim(self, addr: Multiaddr) -> Multiaddr:
        """`addr` as bound. Raises NoTransport, AddressError, OSError."""
        if "unix" in addr:
            file = _FileClaim(addr, self._unix_mode, self._backlog)
            self._claims[addr] = file
            return addr
        try:
            base, rest = split_tcp(addr)
        except AddressError as error:
            raise NoTransport(f"no transport for {addr}") from error
        check_local(addr)
        if rest not in _OVER_TCP and not (rest.startswith(_SNI) and rest.endswith("/ws")):
            raise NoTransport(f"no transport for {addr}")
        if base not in self._claims:
            port = _PortClaim(base)
            base = port.addr
            self._claims[base] = port
        return Multiaddr(f"{base}{rest}")


def close_all(sockets: list[socket.socket]) -> None:
    """Closes and forgets `sockets`; where a worker holds one too, the kernel's socket lives on."""
    while sockets:
        sockets.pop().close()
