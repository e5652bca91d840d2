"""Starts a session of any multiplexer: it takes the place of the mailbox on a chain.

Comes in: options, and a mailbox on top of a record layer. Goes out: a session. Never reads or writes a byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Generic, TypeVar

from p2pcore._fast.chain.layer import Layer, Mailbox
from p2pcore._fast.mux.session import Allowance

_ALLOWED = ("refused_per_s", "refused_burst", "resets_per_s", "reset_burst")
"""Fields of the options that make the allowance which all sessions share, in the order of its arguments."""

S = TypeVar("S", bound=Layer)


class SessionStarter(Generic[S]):
    """Starts sessions with the same options; with a `protocol` it satisfies interfaces.Multiplexer.

    Args:
        session: makes a session from `is_client`, an allowance, and a keyword for each other field of
            `options`.
        options: a dataclass, YamuxOptions for instance.
    """

    __slots__ = ("_bounds", "_session")

    def __init__(self, session: Callable[..., S], options: Any) -> None:
        self._session = session
        values = {field.name: getattr(options, field.name) for field in fields(options)}
        allowance = Allowance(*(values.pop(name) for name in _ALLOWED))
        self._bounds = values | {"allowance": allowance}

    def start(self, mailbox: Mailbox, is_client: bool) -> S:
        """A session in the place of `mailbox`; the bytes that it holds are the session's first input.

        Raises:
            ConnectionClosed: the chain is gone.
            LocalProtocolError: there is no record layer below.
        """
        session = self._session(is_client, **self._bounds)
        mailbox.replace(session)
        return session
