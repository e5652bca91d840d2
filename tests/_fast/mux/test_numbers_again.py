"""A stream number that is used again: nothing done to the old stream touches the new one.

Comes in: frames by hand. Goes out: what the session still has in its table.
"""

from __future__ import annotations

from typing import Any

import pytest

from _fast.chains import FIN, RST, SYN, WU, RawYamux, data, frame
from _fast.mplex_chain import CLOSE_I, MSG_I, NEW, RESET_I, RawMplex, msg
from harness import looped, settle

HOW = ["reset by the peer", "reset here", "ended both ways"]


async def yamux_reused(how: str) -> tuple[Any, Any, Any]:
    """A peer by hand, a stream that has ended, and a new one of the same number."""
    peer = RawYamux()
    old = await peer.open_inbound(1)
    peer.deliver(data(1, b"unread"))
    if how == "reset by the peer":
        peer.deliver(frame(WU, RST, 1))
    elif how == "reset here":
        old.reset()
    else:
        peer.deliver(frame(WU, FIN, 1))
        old.close_write()
    peer.deliver(frame(WU, SYN, 1))
    return peer, old, await peer.session.accept_stream()


async def mplex_reused(how: str) -> tuple[Any, Any, Any]:
    peer = RawMplex()
    old = await peer.open_inbound(1)
    peer.deliver(msg(MSG_I, 1, b"unread"))
    if how == "reset by the peer":
        peer.deliver(msg(RESET_I, 1))
    elif how == "reset here":
        old.reset()
    else:
        peer.deliver(msg(CLOSE_I, 1))
        old.close_write()
    peer.deliver(msg(NEW, 1))
    return peer, old, await peer.session.accept_stream()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("reused", [yamux_reused, mplex_reused], ids=["yamux", "mplex"])
@looped
async def test_what_is_done_to_the_old_stream_leaves_the_new_one_alone(reused: Any, how: str) -> None:
    peer, old, new = await reused(how)
    assert new is not old
    await old.close_read()
    await old.close_write()
    old.reset()
    await old.close()
    await settle()
    assert peer.session.num_streams == 1
    assert not new.is_closed
    new.reset()
    assert peer.session.num_streams == 0
