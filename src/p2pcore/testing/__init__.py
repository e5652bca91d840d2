"""Tools for the tests of programs that use p2pcore: hosts in memory, bad networks, a clock that jumps.

Comes in: options of hosts, conditions of a network, coroutines. Goes out: connected hosts without a socket.
docs/testing.md describes it. Nothing of p2pcore imports this folder, and only `plugin` imports pytest. Each
name is loaded when it is first used, so that the plugin costs other test suites nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pcore.testing.clock import VirtualLoop, run_virtual, virtual
    from p2pcore.testing.links import Conditions
    from p2pcore.testing.network import Network, connected_pair

__all__ = ["Conditions", "Network", "VirtualLoop", "connected_pair", "run_virtual", "virtual"]

_HOMES = {
    "Conditions": "links",
    "Network": "network",
    "VirtualLoop": "clock",
    "connected_pair": "network",
    "run_virtual": "clock",
    "virtual": "clock",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
