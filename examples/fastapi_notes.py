"""A web application with a host inside: notes that its nodes tell each other.

    python fastapi_notes.py HTTP_PORT [PEER]...
    curl -d '{"text": "milk"}' -H 'Content-Type: application/json' http://127.0.0.1:HTTP_PORT/notes
    curl http://127.0.0.1:HTTP_PORT/notes

It prints its libp2p address. PEERs are the addresses of other nodes, which get each note written here.
It needs fastapi and uvicorn. `make_app` may be given to any ASGI server that runs on uvloop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field

from p2pcore import Host, P2PError, Stream

PROTOCOL = "/example-notes/1.0.0"
MAX_NOTE_BYTES = 4000
ANSWER_S = 5


class Note(BaseModel):
    text: str = Field(max_length=1000)


def make_app(peers: Sequence[str], address: str = "/ip4/127.0.0.1/tcp/0") -> FastAPI:
    """An application whose host tells `peers` of each note, and takes theirs."""
    notes: list[Note] = []

    async def take(stream: Stream) -> None:
        async for message in stream.msgs(MAX_NOTE_BYTES):
            notes.append(Note.model_validate_json(message))
            await stream.write_msg(b"")

    async def tell(host: Host, peer: str, note: Note) -> bool:
        try:
            async with host.stream(peer, PROTOCOL) as stream:
                stream.set_deadline(ANSWER_S)
                await stream.write_msg(note.model_dump_json().encode())
                await stream.read_msg(most=0)
        except P2PError:
            return False
        return True

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with Host(listen=[address]) as host:
            host.set_stream_handler(PROTOCOL, take, max_streams_per_peer=10)
            app.state.host = host
            print(*host.addrs_with_peer, sep="\n", flush=True)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/notes")
    async def read() -> list[Note]:
        return notes

    @app.post("/notes")
    async def write(note: Note) -> dict[str, int]:
        """Keeps the note, and says how many peers have it too."""
        notes.append(note)
        told = await asyncio.gather(*(tell(app.state.host, peer, note) for peer in peers))
        return {"peers": sum(told)}

    return app


if __name__ == "__main__":
    try:
        uvicorn.run(make_app(sys.argv[2:]), port=int(sys.argv[1]), loop="uvloop", log_level="error")
    except KeyboardInterrupt:
        pass
