"""Link-local addresses: each form of them connects, on a network of its own that a child process makes.

Loopback interfaces have no such address, so the child runs in a network namespace with two interfaces
that both have fe80::99. What it does is in link_local_child.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import seconds

CHILD = Path(__file__).parent / "link_local_child.py"
ALONE = ["unshare", "--net", "--map-root-user"]
SETUP = """
set -e
ip link set lo up
ip link add veth0 type veth peer name veth1
for name in veth0 veth1; do
    ip link set $name up
    ip -6 addr add fe80::99/64 dev $name nodad
done
ip -6 addr add fd00::7/64 dev veth1 nodad
"""


def may_have_a_network() -> bool:
    """Whether this user may make a network namespace and interfaces in it."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run([*ALONE, "sh", "-c", SETUP], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    not may_have_a_network(), reason="no network namespace: unshare(1), ip(8) and the right to use them"
)


@pytest.mark.parametrize(
    "promise",
    [
        "tcp_connects",
        "websocket_connects",
        "dialling_from_the_listener_connects",
        "dialling_from_an_address_with_a_zone_connects",
        "packets_arrive",
        "a_wildcard_with_a_zone_is_told_as_the_addresses_of_that_interface",
        "zones_are_never_told_to_peers",
    ],
)
def test_link_local(promise: str) -> None:
    done = subprocess.run(
        [*ALONE, "sh", "-c", f'{SETUP}\nexec "$@"', "sh", sys.executable, str(CHILD), promise],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds(60),
    )
    assert done.returncode == 0, done.stdout + done.stderr
