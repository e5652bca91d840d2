"""Offers one file, and fetches it. A fetch that was cut off goes on where it was.

    python file_transfer.py offer FILE [ADDRESS]
    python file_transfer.py fetch ADDRESS DESTINATION

The receiver says from which byte on it wants the file, in eight bytes. The sender answers with the length in
eight bytes, the SHA-256, and the rest of the file. Neither side ever holds more than one piece: `write` waits
for the receiver, whose disk may be slow. What has come stands in DESTINATION.part until the SHA-256 is right.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

from p2pcore import Host, P2PError, RemoteProtocolError, Stream, run

PROTOCOL = "/example-file/1.1.0"
PIECE_BYTES = 256 * 1024
MAX_FILE_BYTES = 1 << 40
STALL_S = 30  # for each piece: a large file may take long
ATTEMPTS = 4  # in a row that bring nothing
PAUSE_S = 0.1  # before the second attempt; then it doubles


def digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


async def send(stream: Stream, path: Path, wanted: bytes) -> None:
    stream.set_deadline(STALL_S)
    offset = int.from_bytes(await stream.read_exactly(8), "big")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        left = size - offset  # below zero: the receiver finds that it has another file
        await stream.write(size.to_bytes(8, "big") + wanted)
        file.seek(offset)
        while left > 0 and (piece := await asyncio.to_thread(file.read, min(PIECE_BYTES, left))):
            stream.set_deadline(STALL_S)
            await stream.write(piece)
            left -= len(piece)


async def receive(stream: Stream, part: Path) -> None:
    """Adds to `part` what is missing. Raises RemoteProtocolError if the whole is not what was offered."""
    have = length(part)
    stream.set_deadline(STALL_S)
    await stream.write(have.to_bytes(8, "big"))
    size = int.from_bytes(await stream.read_exactly(8), "big")
    wanted = await stream.read_exactly(32)
    if size > MAX_FILE_BYTES:
        raise RemoteProtocolError(f"a file of {size} bytes, at most {MAX_FILE_BYTES} are expected")
    with part.open("ab") as file:
        while have < size and (piece := await stream.read(min(PIECE_BYTES, size - have))):
            stream.set_deadline(STALL_S)
            await asyncio.to_thread(file.write, piece)
            have += len(piece)
    if have < size:
        raise EOFError(f"the file ends {size - have} bytes early")
    if await asyncio.to_thread(digest, part) != wanted:
        await asyncio.to_thread(part.unlink)  # next time from the beginning
        raise RemoteProtocolError("this is not the file that was offered")


def length(path: Path) -> int:
    """In bytes; 0 if there is no such file."""
    return path.stat().st_size if path.exists() else 0


async def offer(path: str, address: str = "/ip4/127.0.0.1/tcp/0") -> None:
    wanted = await asyncio.to_thread(digest, Path(path))

    async def serve(stream: Stream) -> None:
        try:
            await send(stream, Path(path), wanted)
        except ConnectionError:
            raise  # the receiver has gone; it may come again
        except OSError as error:
            print(f"not sent: {error}", file=sys.stderr)
            stream.reset()  # the receiver knows that the file is not complete

    async with Host(listen=[address]) as host:
        host.set_stream_handler(PROTOCOL, serve, max_streams=20, max_streams_per_peer=2)
        print(*host.addrs_with_peer, sep="\n", flush=True)
        await asyncio.Event().wait()


async def fetch(address: str, destination: str) -> None:
    path = Path(destination)
    part = path.with_name(path.name + ".part")  # `path` has the whole file or does not exist
    failed = 0
    async with Host(listen=[]) as host:
        while True:
            have = length(part)
            try:
                async with host.stream(address, PROTOCOL) as stream:
                    await receive(stream, part)
                break
            except (ConnectionError, TimeoutError, EOFError) as error:
                failed = 1 if length(part) > have else failed + 1
                if failed == ATTEMPTS:
                    raise
                print(f"again from byte {length(part)}: {error}", flush=True)
                await asyncio.sleep(PAUSE_S * 2 ** (failed - 1))
    part.replace(path)
    print(f"{length(path)} bytes in {path}")


if __name__ == "__main__":
    try:
        run(offer(*sys.argv[2:]) if sys.argv[1] == "offer" else fetch(*sys.argv[2:]))
    except (P2PError, OSError, EOFError) as error:
        sys.exit(f"no file: {error}")
    except KeyboardInterrupt:
        pass
