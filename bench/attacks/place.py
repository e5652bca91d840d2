"""Where a run takes place: a network namespace with addresses that look public, or the loopback addresses.

Comes in: nothing, or `loopback`. Goes out: source addresses for everybody. Nodes may treat loopback addresses
more kindly than the internet, so the namespace makes 11.0.0.0/8 local; no packet leaves its loopback device.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

_INSIDE = "P2PCORE_ATTACKS_NET"
PUBLIC, LOOPBACK = "11", "127"
"""First numbers of the addresses: inside a namespace, and outside of one."""


def enter(arguments: Sequence[str], is_loopback: bool) -> None:
    """Starts this program again in a network namespace; returns inside, or if there can be none."""
    if _INSIDE in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "route", "add", "local", f"{PUBLIC}.0.0.0/8", "dev", "lo"], check=True)
        return
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    if is_loopback or not _can(unshare):
        return
    command = [*unshare, sys.executable, "-m", "attacks", *arguments]
    os.execvpe(command[0], command, {**os.environ, _INSIDE: PUBLIC})


def _can(unshare: list[str]) -> bool:
    if sys.platform != "linux" or not shutil.which("unshare") or not shutil.which("ip"):
        return False
    done = subprocess.run([*unshare, "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return done.returncode == 0


def net() -> str:
    """The first number of all addresses of this run."""
    return os.environ.get(_INSIDE, LOOPBACK)


def node() -> str:
    """The address of the node."""
    return f"{net()}.0.0.1"


def attacker(number: int) -> str:
    """The source address of an attacker; each number is another address block (/32)."""
    return f"{net()}.66.{number // 250}.{number % 250 + 1}"


def honest(number: int) -> str:
    """The source address of an honest peer."""
    return f"{net()}.7.{number // 250}.{number % 250 + 1}"


def dead(peer: int, number: int) -> str:
    """An address of a peer that does not answer."""
    return f"{net()}.99.{peer}.{number + 1}"
