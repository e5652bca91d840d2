"""A chat on several processes or machines: whoever is connected to one of them meets all the others.

    python chat_fleet.py serve [NATS] [LISTEN]          a process of the service; start as many as you like
    python chat_fleet.py join ADDRESS [COUNT]           shows its own id, then COUNT messages
    python chat_fleet.py say ADDRESS TEXT...            to all who have joined, at any process
    python chat_fleet.py whisper ADDRESS PEER TEXT      to one of them, wherever it is

NATS is the URL of a server with JetStream, nats://127.0.0.1:4222 by default.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine

from p2pcore import Host, IdentityError, Stream, run
from p2pcore.fleet import BusDown, Fleet, NatsBus, NotDelivered

ROOM = "/example-chat/room/1.0.0"  # the peer listens
SAY = "/example-chat/say/1.0.0"
WHISPER = "/example-chat/whisper/1.0.0"
INBOX = "/example-chat/inbox/1.0.0"  # served by the peers
MAX_TEXT_BYTES = 1000
WHISPER_S = 5.0


class Chat:
    """What each process of the service does for its own peers."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def room(self, stream: Stream) -> None:
        await self._fleet.subscribe("room", stream)
        await stream.write_msg(b"welcome")
        while await stream.read():  # until the peer leaves
            pass

    async def say(self, stream: Stream) -> None:
        async for text in stream.msgs(MAX_TEXT_BYTES):
            try:
                await self._fleet.publish("room", text)
            except BusDown:
                await stream.write_msg(b"only those at this process hear it")
            else:
                await stream.write_msg(b"said")

    async def whisper(self, stream: Stream) -> None:
        to = (await stream.read_msg(MAX_TEXT_BYTES)).decode()
        text = await stream.read_msg(MAX_TEXT_BYTES)
        try:
            answer = await self._fleet.request(to, INBOX, text, timeout_s=WHISPER_S)
        except (NotDelivered, IdentityError) as error:
            answer = str(error).encode()
        await stream.write_msg(answer)


async def serve(nats: str = "nats://127.0.0.1:4222", listen: str = "/ip4/127.0.0.1/tcp/0") -> None:
    async with Host(listen=[listen]) as host, NatsBus(nats) as bus, Fleet(host, bus, name="chat") as fleet:
        chat = Chat(fleet)
        host.set_stream_handler(ROOM, chat.room)
        host.set_stream_handler(SAY, chat.say)
        host.set_stream_handler(WHISPER, chat.whisper)
        print(host.addrs_with_peer[0], flush=True)
        await asyncio.Event().wait()


async def join(address: str, count: str = "1000000") -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue(100)

    async def inbox(stream: Stream) -> None:
        await heard.put(b"(whispered) " + await stream.read_msg(MAX_TEXT_BYTES))
        await stream.write_msg(b"heard")

    async def listen(room: Stream) -> None:
        async for text in room.msgs(MAX_TEXT_BYTES):
            await heard.put(text)

    async with Host(listen=[]) as host:
        host.set_stream_handler(INBOX, inbox)
        async with host.stream(address, ROOM) as room, asyncio.TaskGroup() as tasks:
            await room.read_msg()  # welcome
            print(host.peer_id, flush=True)
            listening = tasks.create_task(listen(room))
            for _ in range(int(count)):
                print((await heard.get()).decode(), flush=True)
            listening.cancel()


async def say(address: str, *texts: str) -> None:
    async with Host(listen=[]) as host, host.stream(address, SAY) as stream:
        for text in texts:
            await stream.write_msg(text.encode())
            print((await stream.read_msg()).decode())


async def whisper(address: str, peer: str, text: str) -> None:
    async with Host(listen=[]) as host, host.stream(address, WHISPER) as stream:
        await stream.write_msg(peer.encode())
        await stream.write_msg(text.encode())
        print((await stream.read_msg()).decode())


if __name__ == "__main__":
    commands: dict[str, Callable[..., Coroutine[None, None, None]]] = {
        "serve": serve,
        "join": join,
        "say": say,
        "whisper": whisper,
    }
    try:
        run(commands[sys.argv[1]](*sys.argv[2:]))
    except KeyboardInterrupt:
        pass
