"""What both sides of a call agree on: the name of a method, and how its request and answer become bytes.

Comes in: names and pairs of functions. Goes out: typed values that a service and its callers share. Never
sends anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from p2pcore import limits, options

T = TypeVar("T")
Q = TypeVar("Q")
"""The type of a request."""
A = TypeVar("A", covariant=True)
"""The type of an answer, or of each item of a stream of answers. A caller may take it for something wider."""

PREFIX: Final = "/p2pcore-rpc/1"
"""What the protocol id of every service begins with: this wire format, version 1."""


@dataclass(frozen=True)
class Codec(Generic[T]):
    """How values of one type become bytes, and come back.

    Attributes:
        encode: value to bytes. decode: bytes to value; any exception means that the bytes are wrong.
    """

    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]

    def __post_init__(self) -> None:
        options.function("encode", self.encode)
        options.function("decode", self.decode)


def _same(data: bytes) -> bytes:
    return data


BYTES: Final = Codec[bytes](_same, _same)
"""The bytes themselves."""


@dataclass(frozen=True)
class _Described(Generic[Q, A]):
    name: str
    request: Codec[Q]
    answer: Codec[A]
    wire_name: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wire_name", name_bytes(self.name))
        options.instance("request", self.request, Codec)
        options.instance("answer", self.answer, Codec)


@dataclass(frozen=True)
class Method(_Described[Q, A]):
    """A method with one request and one answer. A service and its callers use the same object.

    Attributes:
        name: 1 to 255 bytes of UTF-8, unique in its service.
        request, answer: the codecs of both messages.

    Raises: TypeError, ValueError: an argument is wrong.
    """


@dataclass(frozen=True)
class StreamMethod(_Described[Q, A]):
    """A method with one request and any number of answers, one after another. Otherwise as Method."""


def name_bytes(name: Any) -> bytes:
    """The name of a method on the wire. Raises TypeError, ValueError: it is no name."""
    options.text("name", name, limits.RPC_MAX_METHOD_BYTES)
    data: bytes = name.encode()
    if not 1 <= len(data) <= limits.RPC_MAX_METHOD_BYTES:
        raise ValueError(
            f"name must have 1 to {limits.RPC_MAX_METHOD_BYTES} bytes of UTF-8, but {name!r} has {len(data)}"
        )
    return data


def protocol_of(service: Any) -> str:
    """The protocol id of a service: PREFIX and its name. Raises TypeError, ValueError: it is no name."""
    options.text("name", service, limits.MAX_PROTOCOL_ID_BYTES)
    most = limits.MAX_PROTOCOL_ID_BYTES - len(PREFIX)
    if not options.is_protocol_id(service, most):
        raise ValueError(
            f"name must be '/' and a name such as '/shop/1.0.0', without a newline, at most "
            f"{most} bytes, not {service!r}"
        )
    return f"{PREFIX}{service}"
