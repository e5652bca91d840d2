"""The ports and files of a supervisor. They are claimed once; each worker has a listening socket on each.

Comes in: addresses to listen on. Goes out: real addresses, and listening sockets for workers. The supervisor
keeps these sockets open while workers end and start. So the next worker serves the connections that the
kernel has queued. Never accepts a connection itself.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Protocol

from p2pcore.errors import AddressError, ListenError, NoTransport
from p2pcore.manet.listener import open_bound, open_listening
from p2pcore.manet.sockaddr import parse_endpoint, split_tcp, to_multiaddr
from p2pcore.manet.unix_file import file_of, open_unix, remove_unix
from p2pcore.transports.unix import unix_path
from p2pcore.values.multiaddr import Multiaddr, check_local

_OVER_TCP = frozenset(("", "/ws", "/wss", "/tls/ws"))
_SNI = "/tls/sni/"


class _Claim(Protocol):
    """A port or a file that we own."""

    def open_socket(self, backlog: int) -> socket.socket:
        """A new listening socket for one worker. Raises OSError."""

    def close_listening(self) -> None:
        """Closes our own listening socket. New connections reach only the sockets of workers."""

    def close(self) -> None:
        """Frees the port or the file."""


class _PortClaim:
    """A TCP port. Our socket is bound but never listens, so only the workers' sockets get connections.

    The kernel would let two supervisors of one user share a port, without an error. So we first bind the port
    exclusively.
    """

    def __init__(self, addr: Multiaddr) -> None:
        endpoint = parse_endpoint(addr)
        if endpoint.port:
            open_listening(endpoint, reuse_port=False, backlog=1).close()
        self._sock = open_bound(endpoint, reuse_port=True)
        self.addr = to_multiaddr(self._sock.getsockname())

    def open_socket(self, backlog: int) -> socket.socket:
        return open_listening(parse_endpoint(self.addr), True, backlog)

    def close_listening(self) -> None:
        """Does nothing: our socket does not listen."""

    def close(self) -> None:
        self._sock.close()


class _FileClaim:
    """A UNIX socket that all workers share, because the kernel has no SO_REUSEPORT for UNIX sockets."""

    def __init__(self, addr: Multiaddr, mode: int | None, backlog: int) -> None:
        check_local(addr)
        self._path = unix_path(addr)
        self._sock = open_unix(self._path, mode, backlog)
        self._file = file_of(self._path)
        self.addr = addr

    def open_socket(self, backlog: int) -> socket.socket:
        return self._sock.dup()

    def close_listening(self) -> None:
        if self._sock.fileno() >= 0:
            remove_unix(self._path, self._file)
            self._sock.close()

    def close(self) -> None:
        self.close_listening()


_ONE_HOLDS = "a relay leads to one worker only: listen on another address, too, or use a single process"


class Ports:
    """The claimed addresses of a supervisor.

    Args:
        addrs: addresses to listen on. Port 0 takes a free port, the same for all workers. Several addresses
            on one port share its sockets.
        backlog: connections the kernel may queue for each worker.
        unix_mode: permissions of the files of UNIX addresses; None: by the umask.

    Attributes:
        addrs: the bound addresses. A wildcard stays a wildcard.
        relayed: the addresses behind relays. Nothing is bound for them.
        failures: (address, error) for each address that could not be bound.

    Raises:
        ListenError: no address could be bound, or all are behind relays. `causes` has the error of each.
    """

    def __init__(self, addrs: Iterable[Multiaddr], backlog: int, unix_mode: int | None = None) -> None:
        self._backlog = backlog
        self._unix_mode = unix_mode
        self._claims: dict[Multiaddr, _Claim] = {}
        self.addrs: list[Multiaddr] = []
        self.relayed: list[Multiaddr] = []
        self.failures: list[tuple[Multiaddr, Exception]] = []
        for addr in addrs:
            if addr.is_relayed:
                self.relayed.append(addr)
                continue
            try:
                self.addrs.append(self._claim(addr))
            except (OSError, AddressError) as error:
                self.failures.append((addr, error))
        if not self._claims:
            self.failures += ((addr, ListenError(_ONE_HOLDS)) for addr in self.relayed)
            raise ListenError.of_all(self.failures)

    def open_sockets(self) -> list[socket.socket]:
        """New listening sockets for one worker, one for each port and file. Raises OSError."""
        opened: list[socket.socket] = []
        try:
            for claim in self._claims.values():
                opened.append(claim.open_socket(self._backlog))
        except BaseException:
            close_all(opened)
            raise
        return opened

    def close_listening(self) -> None:
        """Closes our own listening sockets. New connections reach only those of workers. Idempotent."""
        for claim in self._claims.values():
            claim.close_listening()

    def close(self) -> None:
        """Frees all ports and files. Idempotent."""
        for claim in self._claims.values():
            claim.close()

    def _claim(self, addr: Multiaddr) -> Multiaddr:
        """Claims `addr`. Returns: the bound address. Raises NoTransport, AddressError, OSError."""
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
    """Closes `sockets` and empties the list. If a worker holds a socket too, it stays open in the kernel."""
    while sockets:
        sockets.pop().close()
