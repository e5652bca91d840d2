"""Offers one file, and fetches it.

    python file_transfer.py offer FILE
    python file_transfer.py fetch ADDRESS DESTINATION

The stream carries the length of the file in eight bytes, the file, and its SHA-256. Neither side ever holds
more than one piece: `write` waits for the receiver, whose disk may be slow.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

from p2pcore import Host, P2PError, RemoteProtocolError, Stream, run

PROTOCOL = "/example-file/1.0.0"
PIECE_BYTES = 256 * 1024
STALL_S = 30


async def send(stream: Stream, path: Path) -> None:
    sum_of_all = hashlib.sha256()
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        await stream.write(left.to_bytes(8, "big"))
        while left and (piece := await asyncio.to_thread(file.read, min(left, PIECE_BYTES))):
            stream.set_deadline(STALL_S)  # a new deadline for each piece: a large file may take long
            sum_of_all.update(piece)
            await stream.write(piece)
            left -= len(piece)
    if left:
        raise OSError(f"{path} has become shorter")
    await stream.write(sum_of_all.digest())


async def receive(stream: Stream, path: Path) -> int:
    """Writes the file to `path`. Returns: its length. Raises RemoteProtocolError if it is damaged."""
    size = left = int.from_bytes(await stream.read_exactly(8), "big")
    sum_of_all = hashlib.sha256()
    part = path.with_name(path.name + ".part")  # `path` has the whole file or does not exist
    try:
        with part.open("wb") as file:
            while left:
                stream.set_deadline(STALL_S)
                if not (piece := await stream.read(min(left, PIECE_BYTES))):
                    raise RemoteProtocolError(f"the file ends {left} bytes early")
                sum_of_all.update(piece)
                await asyncio.to_thread(file.write, piece)
                left -= len(piece)
        if await stream.read_exactly(32) != sum_of_all.digest():
            raise RemoteProtocolError("the file was damaged on its way")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return size


async def offer(path: str, address: str = "/ip4/127.0.0.1/tcp/0") -> None:
    async def serve(stream: Stream) -> None:
        try:
            await send(stream, Path(path))
        except OSError as error:
            print(f"not sent: {error}", file=sys.stderr)
            stream.reset()  # the receiver knows that the file is not complete

    async with Host(listen=[address]) as host:
        host.set_stream_handler(PROTOCOL, serve)
        print(*host.addrs_with_peer, sep="\n", flush=True)
        await asyncio.Event().wait()


async def fetch(address: str, destination: str) -> None:
    async with Host(listen=[]) as host:
        stream = await host.new_stream(address, PROTOCOL)
        stream.set_deadline(STALL_S)
        size = await receive(stream, Path(destination))
        await stream.close()
    print(f"{size} bytes in {destination}")


if __name__ == "__main__":
    try:
        run(offer(*sys.argv[2:]) if sys.argv[1] == "offer" else fetch(*sys.argv[2:]))
    except (P2PError, OSError) as error:
        sys.exit(f"no file: {error}")
    except KeyboardInterrupt:
        pass
