"""Sends a text to an echo server and prints what comes back: python echo_client.py ADDRESS TEXT"""

from __future__ import annotations

import sys

from p2pcore import Host, P2PError, run

PROTOCOL = "/example-echo/1.0.0"


async def main(address: str, text: str) -> None:
    async with Host(listen=[]) as host:
        stream = await host.new_stream(address, PROTOCOL)
        stream.set_deadline(10)
        await stream.write(text.encode())
        await stream.close_write()  # the server's read() returns b"" after the text
        answer = bytearray()
        while data := await stream.read():
            answer += data
        print(answer.decode())


if __name__ == "__main__":
    try:
        run(main(sys.argv[1], sys.argv[2]))
    except P2PError as error:
        sys.exit(f"no echo: {error}")
