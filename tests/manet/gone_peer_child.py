"""test_gone_peer.py runs this as root in a network namespace. A peer in another namespace vanishes.

It first shortens the kernel's times, so the test does not take a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time

from p2pcore import limits

limits.TCP_KEEPALIVE_IDLE_S = 1  # type: ignore[misc]
limits.TCP_KEEPALIVE_INTERVAL_S = 1  # type: ignore[misc]
limits.TCP_USER_TIMEOUT_S = 4  # type: ignore[misc]
limits.WRITE_STALL_TIMEOUT_S = 60.0  # type: ignore[misc]

import p2pcore  # noqa: E402 - modules copy the limits when they are imported
from p2pcore import Host  # noqa: E402

PEER = """
import asyncio
import p2pcore
from p2pcore import Host
async def main():
    async with Host(listen=["/ip4/10.9.8.2/tcp/4001"], echo=True) as host:
        print(host.addrs_with_peer[0], flush=True)
        await asyncio.Event().wait()
p2pcore.run(main())
"""


def sh(command: str) -> None:
    subprocess.run(command, shell=True, check=True)


async def main(state: str) -> None:
    sh("ip link set lo up; ip link add veth0 type veth peer name veth1")
    sh("ip addr add 10.9.8.1/24 dev veth0; ip link set veth0 up")
    ready = 'read line; ip addr add 10.9.8.2/24 dev veth1; ip link set lo up; ip link set veth1 up; exec "$@"'
    peer = await asyncio.create_subprocess_exec(
        *("unshare", "--net", "sh", "-c", ready, "sh", sys.executable, "-c", PEER),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    try:
        await _wait_for_namespace(peer.pid)
        sh(f"ip link set veth1 netns {peer.pid}")
        peer.stdin.write(b"\n")
        addr = (await peer.stdout.readline()).decode().strip()
        async with Host(listen=()) as host:
            stream = await host.new_stream(addr, "/echo/1.0.0")
            await stream.write(b"x")
            assert await stream.read() == b"x"
            (conn,) = host.swarm.conns()
            ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
            conn.add_close_callback(ended.set_result)
            # Frames to nobody: unlike a link that is down, this tells our kernel nothing.
            sh("ip neigh replace 10.9.8.2 lladdr 02:00:00:00:00:01 dev veth0 nud permanent")
            began = time.monotonic()
            if state == "writing":
                with contextlib.suppress(Exception):
                    await stream.write(b"z" * 1024)
            error = await asyncio.wait_for(ended, 30)
            print(f"after {time.monotonic() - began:.1f} s: {error!r}")
            assert time.monotonic() - began < 15
    finally:
        peer.kill()


async def _wait_for_namespace(pid: int) -> None:
    """Until `pid` has left our network namespace."""
    while os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    p2pcore.run(main(sys.argv[1]))
