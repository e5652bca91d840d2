"""Exit statuses and error messages. A message is one line that says what the user can do.

Comes in: exceptions. Goes out: a status and a line. Looks at types and attributes of errors, never at texts.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import Final

import click

from p2pcore import (
    AddressError,
    DialError,
    HandshakeError,
    LimitedConnection,
    ListenError,
    NegotiationError,
    NoTransport,
    P2PError,
    PeerIdMismatch,
    ProtocolNotSupported,
)
from p2pcore.values.key_files import shown

FAILURE: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
INTERNAL: Final = 70
"""EX_SOFTWARE of sysexits(3): a bug of p2pcore."""
INTERRUPTED: Final = 130
"""128 + SIGINT, as in shells."""
BROKEN_PIPE: Final = 141
"""128 + SIGPIPE."""
TRANSPORTS: Final = (
    "/ip4|ip6/ADDRESS/tcp/PORT, the same followed by /ws or /tls/ws, /unix/PATH, and RELAY/p2p-circuit"
)
"""The addresses that a node of the command line listens on and dials."""


_WORD: Final = re.compile(r"[^\s'\"(),;]+")
_ADDRESSES: Final = ("/ip4/", "/ip6/", "/ip6zone/", "/dns", "/unix/", "/p2p/")


@dataclass(frozen=True, slots=True)
class Failure:
    """The exit status of a command that failed, and its line for standard error."""

    status: int
    text: str


class CommandFailed(Exception):
    """A command could not do its work. The text is the line to show."""


class Unreachable(CommandFailed):
    """The same, because nobody answers."""


def explain(error: BaseException) -> Failure:
    """The status and the line for the error that ended a command."""
    if isinstance(error, click.UsageError):
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx is not None else ""
        return Failure(USAGE, _without_keys(error.format_message().removesuffix(".")) + hint)
    if isinstance(error, click.ClickException):
        return Failure(FAILURE, error.format_message())
    if isinstance(error, DialError):
        return _explain_dial(error)
    if isinstance(error, ListenError) and error.causes:
        texts = (f"cannot listen on {addr}: {reason(cause)}" for addr, cause in error.causes)
        return Failure(FAILURE, "; ".join(texts))
    if isinstance(error, Unreachable):
        return Failure(UNREACHABLE, str(error))
    if isinstance(error, (P2PError, OSError, CommandFailed)):
        return Failure(FAILURE, reason(error))
    return Failure(INTERNAL, f"internal error: {type(error).__name__}: {error} (P2PCORE_DEBUG=1 shows where)")


def _without_keys(text: str) -> str:
    """A usage error shows words of the command line. This hides a word that may be a key."""
    if "PRIVATE KEY" in text:
        return f"wrong usage: {shown(text)}"
    return _WORD.sub(lambda word: word[0] if word[0].startswith(_ADDRESSES) else shown(word[0]), text)


def _explain_dial(error: DialError) -> Failure:
    if not error.causes:
        return Failure(FAILURE, str(error))
    answered = (HandshakeError, NegotiationError, NoTransport, AddressError)
    is_answered = any(isinstance(cause, answered) for _, cause in error.causes)
    return Failure(FAILURE if is_answered else UNREACHABLE, reason(error))


def reason(error: BaseException) -> str:
    """The reason of an error, in a few words."""
    if isinstance(error, PeerIdMismatch):
        return f"the peer there is {error.actual}, not {error.expected}"
    if isinstance(error, ProtocolNotSupported):
        return f"the peer does not speak {', '.join(error.protocols)}"
    if isinstance(error, DialError) and error.causes:
        return "cannot connect to " + "; ".join(f"{addr}: {reason(cause)}" for addr, cause in error.causes)
    if isinstance(error, LimitedConnection):
        return "the relay limits this connection: only ping, identify and echo --allow-limited run over it"
    if isinstance(error, NoTransport):
        return f"no transport for such an address; possible are {TRANSPORTS}"
    if isinstance(error, OSError) and error.errno and not isinstance(error, P2PError):
        return _system(error)
    return str(error) or type(error).__name__


def _system(error: OSError) -> str:
    text = os.strerror(error.errno or 0)
    text = text[:1].lower() + text[1:]
    if error.errno == errno.EADDRNOTAVAIL:
        text += " (no interface of this machine has it)"
    return f"{error.filename}: {text}" if error.filename else text
