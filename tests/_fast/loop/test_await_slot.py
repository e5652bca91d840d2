"""`await` of one of our awaitables calls a slot of its type, and no exception carries the result."""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Iterator

import pytest

import p2pcore._fast.chain.layer
import p2pcore._fast.loop.waiting as waiting
import p2pcore._fast.mux.yamux

TP_AS_ASYNC, AM_SEND = 10, 3
"""Where CPython has them: in pointers, in a PyTypeObject and in its PyAsyncMethods (cpython/object.h)."""

MODULES = (waiting, p2pcore._fast.chain.layer, p2pcore._fast.mux.yamux)
"""Importing them makes all kinds."""


def kinds(kind: type) -> Iterator[type]:
    yield kind
    for each in kind.__subclasses__():
        yield from kinds(each)


def pointer(at: int, index: int) -> int:
    return ctypes.c_size_t.from_address(at + index * ctypes.sizeof(ctypes.c_size_t)).value


@pytest.mark.skipif(
    sys.implementation.name != "cpython" or bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="the layout of types is that of CPython with its lock",
)
def test_every_awaitable_has_the_slot() -> None:
    found = list(kinds(waiting.Op))
    assert len(found) > 12
    slots = {pointer(pointer(id(kind), TP_AS_ASYNC), AM_SEND) for kind in found}
    assert len(slots) == 1, "all have the same"
    assert slots != {0}
