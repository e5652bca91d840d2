"""The TCP ports a host listens on, for every transport over TCP: plain, WebSocket, WebSocket over TLS.

Comes in: the options of a host; an address and the kind of connections wanted there. Goes out: RawListeners,
each on its own socket or on a shared one, and sockets to dial with. Never upgrades.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from ipaddress import ip_address

from p2pcore import options
from p2pcore.interfaces import RawListener
from p2pcore.limits import LISTEN_BACKLOG, MAX_LINGER_S, TCP_CONNECT_TIMEOUT_S
from p2pcore.manet import reuseport
from p2pcore.manet.conn import PlainSocket, set_linger, tune
from p2pcore.manet.linger import LingerListener
from p2pcore.manet.listener import MaListener
from p2pcore.manet.sockaddr import Endpoint, parse_endpoint, to_multiaddr
from p2pcore.transports.tcp.shared import Kind, SharedPort
from p2pcore.values.multiaddr import Multiaddr

_IP_BIND_ADDRESS_NO_PORT = 24
"""From linux/in.h; Python does not define it."""


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """How to dial and listen on TCP, WebSocket included.

    Attributes:
        connect_timeout: seconds for the TCP handshake alone.
        linger: SO_LINGER in whole seconds. None: the kernel delivers written bytes after close. 0: close
            resets the connection; there is no TIME_WAIT, but bytes just written are lost. More than 0: see
            LingerListener.
        reuse_port: let other processes share the port of a listener.
        backlog: connections the kernel may queue.
        dial_from: the local IP address for outbound connections of its family; None: the kernel chooses. One
            local address can reach one listener about 28,000 times at most (ip_local_port_range).
        dial_from_listener: dial from the port of a listener, if one fits; see reuseport.py.
        sockets: listening sockets, made by `manet.listener.open_listening`. Listening on the address of one
            takes it over, once. Other processes may share its queue.
        share_port: several kinds of connections may listen on one port, and all kinds that ask for port 0 of
            an IP address get the same port. False: only if a host listens on several addresses with one port.

    Raises:
        TypeError, ValueError: a field has a wrong type or value; `dial_from` is not a numeric address, or is
            used together with `dial_from_listener`.
    """

    connect_timeout: float = TCP_CONNECT_TIMEOUT_S
    linger: int | None = None
    reuse_port: bool = False
    backlog: int = LISTEN_BACKLOG
    dial_from: str | None = None
    dial_from_listener: bool = False
    sockets: tuple[socket.socket, ...] = ()
    share_port: bool = False

    def __post_init__(self) -> None:
        options.seconds("connect_timeout", self.connect_timeout)
        if self.linger is not None:
            options.whole("linger", self.linger, most=MAX_LINGER_S)
        options.flag("reuse_port", self.reuse_port)
        options.whole("backlog", self.backlog)
        options.flag("dial_from_listener", self.dial_from_listener)
        options.items("sockets", self.sockets, "listening sockets", socket.socket)
        if any(sock.family == socket.AF_UNIX for sock in self.sockets):
            raise ValueError("sockets must be TCP sockets; those of /unix addresses belong to UnixOptions")
        options.flag("share_port", self.share_port)
        if self.dial_from is not None:
            _check_ip("dial_from", self.dial_from)
            if self.dial_from_listener:
                raise ValueError("dial_from and dial_from_listener exclude each other")


def _check_ip(name: str, value: object) -> None:
    options.instance(name, value, str)
    try:
        ip_address(str(value))
    except ValueError:
        raise ValueError(f"{name} must be a numeric IP address, not {value!r}") from None


class TcpPorts:
    """The ports of one host.

    Args:
        options: see TcpOptions.
        shared: addresses, up to the port, where several kinds share the port.
        is_psk: the network is private: plain connections begin with a nonce; see shared.kind_of.
    """

    def __init__(
        self,
        options: TcpOptions = TcpOptions(),
        shared: frozenset[Multiaddr] = frozenset(),
        is_psk: bool = False,
    ) -> None:
        self.options = options
        self._shared_addrs = shared
        self._is_psk = is_psk
        self._source = None if options.dial_from is None else _source(options.dial_from)
        self._sockets = {to_multiaddr(sock.getsockname()): sock for sock in options.sockets}
        self._bound: list[MaListener] = []
        self._shared: dict[SharedPort, Multiaddr] = {}

    # -- listening -----------------------------------------------------------------------------

    def listen(self, addr: Multiaddr, kind: Kind = Kind.PLAIN) -> RawListener:
        """Binds, or joins a shared port; call it inside a running event loop.

        Args:
            addr: /ip4|ip6/…/tcp/N and nothing more; 0 means any free port.
            kind: how the connections of this listener begin; it matters only on a shared port.

        Raises:
            AddressError: not a TCP address; OSError: binding failed; EADDRINUSE also means that the port has
                a listener of this kind.
        """
        if not self.options.share_port and addr not in self._shared_addrs:
            return self._bind(addr)
        port = self._port_for(addr, kind)
        if port is None:
            port = SharedPort(self._bind(addr), self._is_psk, self._forget)
            self._shared[port] = addr
        return port.listen(kind)

    def _forget(self, port: SharedPort) -> None:
        self._shared.pop(port, None)

    def _port_for(self, addr: Multiaddr, kind: Kind) -> SharedPort | None:
        """The open port for `addr`; for port 0, one that has no listener of this kind yet."""
        any_port = parse_endpoint(addr).port == 0
        for port, asked in self._shared.items():
            if port.multiaddr == addr or (any_port and asked == addr and kind not in port.kinds):
                return port
        return None

    def _bind(self, addr: Multiaddr) -> RawListener:
        options = self.options
        adopted = self._sockets.pop(addr, None)
        if adopted is not None:
            bound = MaListener.adopt(adopted, options.backlog)
        else:
            bound = MaListener.bind(addr, options.reuse_port, options.backlog)
        self._bound = [each for each in self._bound if each.listening_socket is not None]
        self._bound.append(bound)
        return bound if options.linger is None else LingerListener(bound, options.linger)

    # -- dialling ------------------------------------------------------------------------------

    def open_socket(self, target: Endpoint, is_retry: bool = False) -> socket.socket:
        """A tuned socket to connect to `target`, bound if the options say so.

        Args:
            is_retry: the last one could not use a listener's port: use another port.

        Raises: OSError.
        """
        sock = PlainSocket(target.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            tune(sock)
            if self.options.linger is not None:
                set_linger(sock, self.options.linger)
            if self._source is not None and self._source.family is target.family:
                _bind_source(sock, self._source)
            if self.options.dial_from_listener and not is_retry:
                self._bind_beside_listener(sock, target)
        except BaseException:
            sock.close()
            raise
        return sock

    def is_port_taken(self, error: OSError) -> bool:
        """True if a dial failed because it used a listener's port; another port may work."""
        return self.options.dial_from_listener and reuseport.is_unusable(error)

    def _bind_beside_listener(self, sock: socket.socket, target: Endpoint) -> None:
        sockets = [each.listening_socket for each in self._bound]
        listener = reuseport.choose([each for each in sockets if each is not None], target)
        if listener is not None:
            reuseport.bind_beside(sock, listener)


def _source(text: str) -> Endpoint:
    host, _, zone = text.partition("%")
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    return Endpoint(family, host, 0, zone)


def _bind_source(sock: socket.socket, source: Endpoint) -> None:
    """Binds the address alone: connect(2) chooses the port, and may use one port for several destinations."""
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind(source.sockaddr())
