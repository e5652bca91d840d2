"""Every exception p2pcore raises, in one tree.

    P2PError
    ├── AddressError            (ValueError)            a multiaddr is malformed, or unusable here
    │   └── ProtocolLookupError (KeyError)              ... it lacks the protocol asked for
    ├── IdentityError           (ValueError)            a key, id, envelope or record is malformed or forged
    ├── NegotiationError                                multistream-select failed
    │   ├── NegotiationTimeout  (TimeoutError)          the peer did not answer a proposal in time
    │   ├── ProtocolNotSupported                        one side has none of what the other proposed
    │   ├── RequestAnswered                             the peer sent plain HTTP, and was answered
    │   └── WrongNetworkKey                             the peer is not in our private network
    ├── HandshakeError          (ConnectionError)       a security handshake failed
    │   ├── PeerIdMismatch                              ... because the peer proved another id
    │   └── PeerIsSelf                                  ... because the peer proved our own id
    ├── UpgradeTimeout          (TimeoutError)          a connection was not secured and multiplexed in time
    ├── ProtocolError                                   somebody broke a wire protocol
    │   ├── LocalProtocolError                          ... this program did
    │   └── RemoteProtocolError                         ... the peer did; `code` is what we tell it
    ├── LimitExceeded                                   a limit of ours was hit, of Limits or limits.py
    ├── RefusedByPeer                                   a limit of the peer was hit, and the peer said so
    │   ├── GoAwayRefused       (GoAway)                ... it refused the connection
    │   └── StreamRefused       (StreamReset)           ... it refused the stream
    ├── ConnectionClosed        (ConnectionError)       the connection is gone
    │   ├── GoAway                                      ... by a go-away with a code, ours or the peer's
    │   └── BusStreamLost                               ... of a stream over the bus; `reason` says why
    ├── RelayRefused            (ConnectionError)       a relay said no; `status` is its answer
    ├── StreamError                                     one stream failed, the connection goes on
    │   ├── StreamReset         (ConnectionError)       reset with a code, by us or by the peer
    │   ├── StreamClosed        (ConnectionError)       it was used after we closed it
    │   ├── IncompleteRead      (EOFError)              the peer ended before all bytes came
    │   ├── DeadlineExceeded    (TimeoutError)          a read or write deadline passed; it stays usable
    │   └── LimitedConnection   (ConnectionError)       a limited connection needs `allow_limited`
    ├── GaterRefused            (PermissionError)       the connection gater said no
    ├── DialError               (ConnectionError)       no address of a peer could be reached
    ├── AddressInBackoff        (ConnectionError)       an address failed a short while ago
    ├── BlackHoleSuspected      (ConnectionError)       addresses of this kind do not work from here
    ├── ResolutionError         (OSError)               a host name leads to no address
    ├── RpcError                                        a call failed; `code` says why
    │   ├── RpcTimeout          (TimeoutError)          ... its deadline passed
    │   └── RpcUnavailable      (ConnectionError)       ... the peer cannot be reached now
    ├── BusError                (ConnectionError)       a message bus did not do what it was asked
    │   ├── BusDown                                     ... its engine is away
    │   └── NobodyListens                               ... nobody subscribed to the subject of a request
    ├── NotDelivered            (ConnectionError)       a message in a fleet failed; `reason` says why
    ├── AddrBookError           (OSError)               the file of an address book cannot be used
    ├── WorkerFailed            (RuntimeError)          a worker process could not start
    └── ListenError             (OSError)               listening failed or has ended
        ├── NoTransport                                 no transport takes this address
        ├── ListenerClosed                              the listener was closed
        └── SwarmClosed                                 the swarm was closed

Whatever a peer sends, a parser returns, wants more, or raises RemoteProtocolError or
LimitExceeded. Texts are for people; programs look at types and attributes. pickle and copy work for every
one of them.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Self, TypeVar

from p2pcore import codes
from p2pcore.codes import RpcCode, Undelivered, conn_reason, stream_reason
from p2pcore.limits import MAX_DIAL_ADDRS, MAX_DIAL_CAUSES_SHOWN

_CONN_REFUSALS = (codes.CONN_RESOURCE_LIMIT_EXCEEDED, codes.CONN_RATE_LIMITED)
_STREAM_REFUSALS = (codes.STREAM_RESOURCE_LIMIT_EXCEEDED, codes.STREAM_RATE_LIMITED)


E = TypeVar("E", bound=BaseException)


class P2PError(Exception):
    """Root of everything p2pcore raises on purpose.

    Attributes:
        stage: the step that failed. "stream protocol": the negotiation of a stream. Another text is a step of
            a connection's upgrade, such as "security handshake". None: the error has no such step.
    """

    stage: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle: the text and the attributes. It does not call `__init__`, whose arguments are not kept.

        An exception of another library that pickle cannot carry is replaced by a P2PError with its text.
        """
        return _restored, (type(self), self._args()), _portable(self._state())

    def __copy__(self) -> Self:
        """As pickle, but a shallow copy: attributes are the same objects."""
        copied: Self = _restored(type(self), self._args())
        copied.__setstate__(self._state())
        return copied

    def _args(self) -> Any:
        """The arguments to create the built-in base class again; OSError adds the file to `args`."""
        return super().__reduce__()[1]

    def _state(self) -> dict[str, Any]:
        causes = {"__cause__": self.__cause__} if self.__cause__ is not None else {}
        return self.__dict__ | causes | {"__suppress_context__": self.__suppress_context__}


def _restored(kind: type[P2PError], args: tuple[Any, ...]) -> Any:
    """An error of `kind`, created as its built-in base class does; its own attributes are still missing."""
    error = kind.__new__(kind, *args)
    super(P2PError, error).__init__(*args)
    return error


def _portable(value: Any) -> Any:
    """`value`. A P2PError with the same text replaces each exception in it that pickle cannot carry."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(_portable, value))
    if not isinstance(value, BaseException) or isinstance(value, P2PError):
        return value
    import pickle  # here, because few programs pickle errors

    try:
        if type(pickle.loads(pickle.dumps(value))) is type(value):
            return value
    except Exception:  # its class may do anything while it is pickled or restored
        pass
    return P2PError(f"{type(value).__name__}: {value}")


_OURS = frozenset(
    getattr(errno, name)
    for name in (
        *("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"),  # this machine is short of something
        *(
            "ENETUNREACH",
            "ENETDOWN",
            "EAFNOSUPPORT",
            "EADDRNOTAVAIL",
            "EADDRINUSE",
        ),  # it has no route there now
        *("EACCES", "EPERM"),  # it does not permit it
        *("ENODEV", "ENXIO", "EINVAL"),  # it has no such interface
    )
    if hasattr(errno, name)
)
_MAX_CAUSES = 8  # how many errors of a chain of causes are checked


def blame_us(error: E) -> E:
    """`error`, marked as our own fault: it says nothing about the address that was dialled."""
    error.is_ours = True  # type: ignore[attr-defined]
    return error


def is_ours(error: BaseException | None) -> bool:
    """True if a dial failed because of this machine, its network or its configuration, not of the address."""
    if isinstance(error, AddressError):
        return True
    for _ in range(_MAX_CAUSES):
        if error is None:
            break
        if getattr(error, "is_ours", False):
            return True
        if isinstance(error, OSError) and error.errno in _OURS:
            return True
        error = error.__cause__
    return False


class AddressError(P2PError, ValueError):
    """A multiaddr could not be parsed, printed or used; the text names the value and what was expected."""


class ProtocolLookupError(AddressError, KeyError):
    """A multiaddr has no component of the protocol that was asked for."""

    __str__ = Exception.__str__  # KeyError would show the text quoted


class IdentityError(P2PError, ValueError):
    """A key, peer id, signed envelope or peer record is malformed, unsupported, or wrongly signed."""


class NegotiationError(P2PError):
    """multistream-select ended without agreement: bad message, end of input, or too many proposals."""


class NegotiationTimeout(NegotiationError, TimeoutError):
    """The peers did not agree on the protocol of a stream within STREAM_NEGOTIATION_TIMEOUT_S."""


class ProtocolNotSupported(NegotiationError):
    """One side supports none of the protocols that the other proposed.

    Attributes:
        protocols: what was proposed, in order.
        stage: what was negotiated: "security negotiation", "muxer negotiation" or "stream protocol".
        by_peer: the peer proposed, and we support none of them.
    """

    def __init__(
        self,
        protocols: Sequence[str],
        stage: str = "stream protocol",
        by_peer: bool = False,
        detail: str = "",
    ) -> None:
        names = ", ".join(protocols)
        what = (
            f"the peer proposed {names}, which we do not support"
            if by_peer
            else f"the peer supports none of {names}"
        )
        super().__init__(f"{stage}: {what}{detail}")
        self.protocols = tuple(protocols)
        self.stage = stage
        self.by_peer = by_peer


class RequestAnswered(NegotiationError):
    """The connection was a plain HTTP request, which has been answered. Nothing failed."""


class WrongNetworkKey(NegotiationError):
    """The peer is not in our private network: it has another key, or uses no key at all.

    Attributes:
        speaks: what the peer seems to speak instead ("HTTP", "TLS", "libp2p without a network key" ...); None
            where that looks the same as another key.
    """

    def __init__(self, message: str, speaks: str | None = None) -> None:
        super().__init__(message)
        self.speaks = speaks


class HandshakeError(P2PError, ConnectionError):
    """A security handshake failed: forged, malformed, incomplete or refused."""


class PeerIdMismatch(HandshakeError):
    """The peer proved an identity that is not the one dialled.

    Attributes:
        expected, actual: the two ids, each with a base58 `str()`.
    """

    def __init__(self, expected: object, actual: object) -> None:
        super().__init__(f"expected peer {expected}, but it proved to be {actual}")
        self.expected = expected
        self.actual = actual


class PeerIsSelf(HandshakeError):
    """The peer proved our own identity: this host has dialled itself.

    Attributes:
        peer: our id, with a base58 `str()`.
    """

    def __init__(self, peer: object) -> None:
        super().__init__(f"the peer is this host itself, {peer}")
        self.peer = peer


class UpgradeTimeout(P2PError, TimeoutError):
    """A connection was not secured and multiplexed before its deadline."""


class ProtocolError(P2PError):
    """Somebody broke the rules of a wire protocol."""


class LocalProtocolError(ProtocolError):
    """This program asked for something the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol does not allow.

    Attributes:
        code: the code that we send to the peer (a yamux go-away code, for instance).
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class LimitExceeded(P2PError):
    """A limit of ours was exceeded. What a limit of the peer refused is a RefusedByPeer.

    Attributes:
        limit: the limit's name. used: what is in use, or what was asked for. maximum: what is allowed.
        who: the peer or the addresses that the limit holds for; None: it holds for all together.
        setting: the option that changes the limit, as "Limits.max_conns"; None: it is a fixed bound.
    """

    def __init__(
        self,
        limit: str,
        used: int,
        maximum: int,
        *,
        who: str | None = None,
        what: str = "",
        setting: str | None = None,
    ) -> None:
        subject = " ".join(filter(None, (what, who)))
        text = (
            f"{used} of {maximum} {subject}" if subject else f"{limit}: {used} is over the limit of {maximum}"
        )
        super().__init__(f"{text} ({setting})" if setting else text)
        self.limit = limit
        self.used = used
        self.maximum = maximum
        self.who = who
        self.setting = setting


class RefusedByPeer(P2PError):
    """A limit of the peer has refused a connection or a stream. No option of ours helps.

    Attributes:
        code: what the peer sent; see p2pcore.codes.
    """

    code: int


class ConnectionClosed(P2PError, ConnectionError):
    """The connection has ended; nothing more can be read, written or opened."""


@lru_cache(maxsize=64)
def _went_away(code: int, remote: bool) -> str:
    """Every connection ends with one of a few such texts."""
    return f"connection closed by {'the peer' if remote else 'us'}: {conn_reason(code)}"


class GoAway(ConnectionClosed):
    """The connection ended by a go-away message.

    Attributes:
        code: 0 normal, 1 protocol error, 2 internal error, or an application's code.
        remote: True if the peer sent it.
    """

    def __init__(self, code: int, remote: bool) -> None:
        super().__init__(_went_away(code, remote))
        self.code = code
        self.remote = remote


class GoAwayRefused(RefusedByPeer, GoAway):
    """The peer ended the connection, because it has too many, or because we connect too often."""

    def __init__(self, code: int) -> None:
        super().__init__(code, True)


def go_away_by_peer(code: int) -> GoAway:
    """The error of a connection that the peer ended with `code`."""
    return GoAwayRefused(code) if code in _CONN_REFUSALS else GoAway(code, True)


def is_elsewhere(error: BaseException) -> bool:
    """Whether `error` says that the peer is ending: it has not served the stream, but another one may."""
    if isinstance(error, StreamReset):
        return error.remote and error.code == codes.STREAM_SHUTDOWN
    return isinstance(error, GoAway) and error.remote and error.code in (0, codes.CONN_SHUTDOWN)


def is_unserved(error: BaseException, is_acknowledged: bool) -> bool:
    """Whether `error` says that the peer is ending, and that it has not served the stream and never will.

    Args:
        is_acknowledged: Stream.is_acknowledged. A peer of ours acknowledges a stream before it serves it, and
            serves none that is not acknowledged when it shuts down.
    """
    if isinstance(error, GoAway):
        return error.remote and error.code == codes.CONN_SHUTDOWN and not is_acknowledged
    return isinstance(error, StreamReset) and is_elsewhere(error)


class RelayRefused(P2PError, ConnectionError):
    """A relay refused a reservation or a circuit.

    Attributes:
        status: the code it answered (circuit-v2 specification); 204: the target has no reservation there.
    """

    def __init__(self, what: str, status: int, name: str) -> None:
        super().__init__(f"the relay refused {what}: {name} ({status})")
        self.status = status


class StreamError(P2PError):
    """One stream failed; its connection goes on."""


class LimitedConnection(StreamError, ConnectionError):
    """A relay limits the connection's bytes or time. Opening a stream on it needs `allow_limited`."""


class StreamReset(StreamError, ConnectionError):
    """The stream was aborted in both directions.

    Attributes:
        code: the reset code, 0 where none was given; remote: True if the peer reset it.
    """

    def __init__(self, code: int = 0, remote: bool = False) -> None:
        why = f": {stream_reason(code)}" if code else ""
        super().__init__(f"stream reset by {'the peer' if remote else 'us'}{why}")
        self.code = code
        self.remote = remote


class StreamRefused(RefusedByPeer, StreamReset):
    """The peer reset the stream, because it serves too many, or because we open them too often."""

    def __init__(self, code: int) -> None:
        super().__init__(code, True)


def reset_by_peer(code: int) -> StreamReset:
    """The error of a stream that the peer reset with `code`."""
    return StreamRefused(code) if code in _STREAM_REFUSALS else StreamReset(code, True)


class StreamClosed(StreamError, ConnectionError):
    """We have closed the stream, or the half of it that was used."""


class IncompleteRead(StreamError, EOFError):
    """The peer ended the stream before all the requested bytes came.

    Attributes:
        partial: the bytes that came; expected: how many were requested.
    """

    def __init__(self, partial: bytes, expected: int) -> None:
        super().__init__(f"{len(partial)} of {expected} bytes came before the end of the stream")
        self.partial = partial
        self.expected = expected


class DeadlineExceeded(StreamError, TimeoutError):
    """A read or write deadline passed. No byte was consumed; clear the deadline to go on."""


class GaterRefused(P2PError, PermissionError):
    """The connection gater said no.

    Attributes:
        point: at which check: "peer dial", "addr dial", "accept", "secured" or "upgraded".
        code: what the peer is told, if there is a way; reason: the gater's own words, or "". See Refusal.
    """

    def __init__(self, point: str, what: object, reason: str = "", code: int = codes.CONN_GATED) -> None:
        why = f": {reason}" if reason else ""
        super().__init__(f"the connection gater refused {what} ({point}){why}")
        self.point = point
        self.code = code
        self.reason = reason


class DialError(P2PError, ConnectionError):
    """No address of a peer could be reached.

    Attributes:
        peer: the peer's id, or None.
        causes: (address, error) of each address: why it failed, or why it was not tried; in order, at most
            MAX_DIAL_ADDRS.
        num_skipped: how many further addresses were ignored.
        cause: what stopped the dial as a whole (GaterRefused, LimitExceeded), or None.
    """

    def __init__(
        self,
        peer: object,
        causes: Sequence[tuple[object, BaseException]],
        reason: str = "",
        num_skipped: int = 0,
        cause: BaseException | None = None,
    ) -> None:
        self.peer = peer
        self.causes = tuple(causes)[:MAX_DIAL_ADDRS]
        self.num_skipped = num_skipped + max(0, len(causes) - MAX_DIAL_ADDRS)
        self.cause = cause
        why = reason or cause or "all addresses failed"
        super().__init__(f"cannot dial {peer or 'the peer'}: {why}{self._tried()}")

    def _tried(self) -> str:
        shown = self.causes[:MAX_DIAL_CAUSES_SHOWN]
        text = "".join(f"; {addr}: {error}" for addr, error in shown).replace(";", ":", 1)
        hidden = len(self.causes) - len(shown) + self.num_skipped
        return f"{text}; and {hidden} more addresses" if hidden else text


class AddressInBackoff(P2PError, ConnectionError):
    """An address was not dialled, because it failed a short while ago.

    Attributes:
        wait_s: seconds until it may be dialled again.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"it failed before and is not dialled for another {wait_s:.1f} s")
        self.wait_s = wait_s


class BlackHoleSuspected(P2PError, ConnectionError):
    """An address was not dialled, because addresses of its kind hardly ever work from here.

    Attributes:
        kind: "UDP" or "IPv6".
    """

    def __init__(self, kind: str) -> None:
        super().__init__(f"{kind} seems not to work from here; it is tried again now and then")
        self.kind = kind


class ResolutionError(P2PError, OSError):
    """A host name leads to no address: it does not exist, nobody answered in time, or no address fits."""


class RpcError(P2PError):
    """A call failed. A method of a service raises it to tell the caller why; any other error stays private.

    Attributes:
        code: why, for programs. message: the same for people; the peer sees it.
    """

    def __init__(self, code: RpcCode, message: str = "") -> None:
        self.code = RpcCode(code)
        super().__init__(f"{self.code.name}: {message}" if message else self.code.name)
        self.message = message


class RpcTimeout(RpcError, TimeoutError):
    """The deadline of a call passed. The call may have run, or may still run."""


class RpcUnavailable(RpcError, ConnectionError):
    """The peer of a call cannot be reached now, or the connection was lost. The call may have run."""


def rpc_error(code: RpcCode, message: str = "") -> RpcError:
    """The RpcError, or the subclass, for `code`."""
    return _RPC_ERRORS.get(code, RpcError)(code, message)


_RPC_ERRORS: dict[RpcCode, type[RpcError]] = {
    RpcCode.DEADLINE_EXCEEDED: RpcTimeout,
    RpcCode.UNAVAILABLE: RpcUnavailable,
}


class BusError(P2PError, ConnectionError):
    """The message bus of a fleet did not do what it was asked."""


class BusDown(BusError):
    """The engine of the bus is away. What belongs to this process works on."""


class NobodyListens(BusError):
    """Nobody subscribed to the subject of a request. The request reached nobody."""


class NotDelivered(P2PError, ConnectionError):
    """A message to a peer of a fleet was not delivered, or nobody knows whether it was.

    Attributes:
        peer: whom it was for. reason: why. detail: the same for people, more closely, or "".
        may_have_arrived: False: the peer has certainly not seen it, so it can be sent again.
    """

    def __init__(
        self, peer: object, reason: Undelivered, *, may_have_arrived: bool = False, detail: str = ""
    ) -> None:
        words = reason.name.replace("_", " ").lower()
        perhaps = "; it may have arrived" if may_have_arrived else ""
        super().__init__(f"no delivery to {peer}: {words}{f' ({detail})' if detail else ''}{perhaps}")
        self.peer = peer
        self.reason = reason
        self.detail = detail
        self.may_have_arrived = may_have_arrived


class BusStreamLost(ConnectionClosed):
    """A stream over the bus of a fleet has ended, because the way to the process of the peer has.

    Attributes:
        reason: BUS_DOWN, or GONE: that process has ended, stands still, or has closed its fleet.
    """

    def __init__(self, reason: Undelivered, detail: str = "") -> None:
        words = reason.name.replace("_", " ").lower()
        super().__init__(f"a stream over the bus has ended: {words}{f' ({detail})' if detail else ''}")
        self.reason = reason
        self.detail = detail


class AddrBookError(P2PError, OSError):
    """The file of an address book is damaged, is something else, or cannot be opened.

    Attributes:
        path: the file.
        is_locked: another program writes to the file now. It may work later.
    """

    def __init__(self, path: str, reason: str, is_locked: bool = False) -> None:
        super().__init__(f"the address book {path!r} cannot be used: {reason}")
        self.path = path
        self.is_locked = is_locked


class WorkerFailed(P2PError, RuntimeError):
    """A worker process ended before it began to serve.

    Attributes:
        index: which worker; status: its exit status, negative for a signal; reason: what it reported.
    """

    def __init__(self, index: int, status: int, reason: str) -> None:
        super().__init__(f"worker {index} could not start: {reason}")
        self.index = index
        self.status = status
        self.reason = reason


class ListenError(P2PError, OSError):
    """Listening on an address failed, or a listener has ended.

    Attributes:
        causes: (address, error) of each address, if several were tried and all failed.
    """

    causes: tuple[tuple[object, BaseException], ...] = ()

    @classmethod
    def of_all(cls, causes: Sequence[tuple[object, BaseException]]) -> Self:
        """The error where each address of `causes` failed."""
        texts = "; ".join(f"{addr}: {cause}" for addr, cause in causes)
        error = cls(f"cannot listen on any address: {texts}")
        error.causes = tuple(causes)
        return error


class NoTransport(ListenError):
    """No transport of this swarm can listen on the address."""


class ListenerClosed(ListenError):
    """The listener has been closed; `accept` returns no more connections."""


class SwarmClosed(ListenError):
    """The swarm has been closed."""
