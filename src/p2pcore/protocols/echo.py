"""echo: sends every byte back; for tests and measurements.

Comes in: streams of /echo/1.0.0. Goes out: the same bytes in order; it ends its half after the peer has.
Never holds more bytes than one read returns.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from p2pcore import codes
from p2pcore._fast.mux.echo import echo as reflect
from p2pcore.errors import IncompleteRead, RemoteProtocolError

if TYPE_CHECKING:
    from p2pcore.interfaces import Stream

PROTOCOL = "/echo/1.0.0"


async def serve(stream: Stream) -> Stream | None:
    """The stream handler: sends back what comes, until the peer has ended its half.

    Most streams bring one message, and that together with their proposal. What comes after a second one, or
    on a stream that was silent at first, wakes no task: the handler is over by then (docs/decisions/0044).
    """
    for _ in range(2 if stream.num_buffered else 0):
        if not (data := await stream.read()):
            return None
        await stream.write(data)
    reflect(cast("Any", stream))
    return stream


async def echo(stream: Stream, data: bytes | bytearray | memoryview) -> bytes:
    """Sends `data`, ends our half, reads as many bytes back, and closes the stream.

    Raises: IncompleteRead: fewer came back; RemoteProtocolError: more did; StreamReset, ConnectionClosed.
    """
    try:
        memoryview(data)
    except TypeError:
        stream.reset()
        raise TypeError(f"data must be bytes, not a {type(data).__name__}") from None
    sending = asyncio.create_task(_send(stream, data))
    try:
        back = await _receive(stream, len(data))
        await sending
    except BaseException:
        stream.reset(codes.STREAM_PROTOCOL_VIOLATION)
        raise
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await stream.close()
    return back


async def _send(stream: Stream, data: bytes | bytearray | memoryview) -> None:
    await stream.write(data)
    await stream.close_write()


async def _receive(stream: Stream, size: int) -> bytes:
    back = bytearray()
    while chunk := await stream.read():
        back += chunk
        if len(back) > size:
            raise RemoteProtocolError("more came back than was sent")
    if len(back) < size:
        raise IncompleteRead(bytes(back), size)
    return bytes(back)
