"""A peer whose machine has gone is noticed by the kernel, on sockets dialled and accepted alike."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness import looped, seconds
from p2pcore import limits
from p2pcore.manet.listener import MaListener
from p2pcore.manet.sockaddr import parse_endpoint
from p2pcore.transports.tcp.ports import TcpPorts
from p2pcore.values.multiaddr import Multiaddr

CHILD = Path(__file__).parent / "gone_peer_child.py"
WANTED = {
    "TCP_KEEPIDLE": limits.TCP_KEEPALIVE_IDLE_S,
    "TCP_KEEPINTVL": limits.TCP_KEEPALIVE_INTERVAL_S,
    "TCP_KEEPCNT": limits.TCP_KEEPALIVE_PROBES,
    "TCP_USER_TIMEOUT": limits.TCP_USER_TIMEOUT_S * 1000,
}


def options_of(sock: socket.socket) -> dict[str, int]:
    return {
        name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in WANTED
        if hasattr(socket, name)
    }


@looped
async def test_dialled_and_accepted_sockets_have_the_kernel_look_for_peers_that_are_gone() -> None:
    wanted = {name: value for name, value in WANTED.items() if hasattr(socket, name)}
    listener = MaListener.bind(Multiaddr("/ip4/127.0.0.1/tcp/0"))
    endpoint = parse_endpoint(listener.multiaddr)
    dialled = TcpPorts().open_socket(endpoint)
    dialled.connect_ex(endpoint.sockaddr())
    accepted = (await listener.accept())._sock
    assert accepted is not None
    for sock in (dialled, accepted):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert options_of(sock) == wanted
        sock.close()
    await listener.close()


def test_the_kernel_gives_a_peer_up_after_its_last_probe_and_not_before() -> None:
    probing = limits.TCP_KEEPALIVE_INTERVAL_S * limits.TCP_KEEPALIVE_PROBES
    assert limits.TCP_KEEPALIVE_IDLE_S + probing == limits.TCP_USER_TIMEOUT_S
    assert limits.TCP_KEEPALIVE_IDLE_S + probing <= 60


def may_have_networks() -> bool:
    """Whether this user may make network namespaces that see one another, and interfaces."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    made = subprocess.run(
        ["unshare", "--net", "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"],
        capture_output=True,
        check=False,
    )
    return made.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not may_have_networks(), reason="network namespaces take root, unshare(1) and ip(8)")
@pytest.mark.parametrize("state", ["idle", "writing"])
def test_a_peer_whose_machine_has_gone_is_noticed(state: str) -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, str(CHILD), state],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds(60),
    )
    assert done.returncode == 0, done.stdout + done.stderr
