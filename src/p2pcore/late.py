"""A module that is imported when one of its names is first used, because most programs never use it.

Comes in: the name of a module. Goes out: its classes, functions and constants. Never imports anything before.
Type checkers see an ordinary import:

    if TYPE_CHECKING:
        from p2pcore.swarm import events
    else:
        events = Late("p2pcore.swarm.events")
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Late:
    """Stands for the module `name`. It keeps what it has given once, so take no variable that changes."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value

    def __repr__(self) -> str:
        return f"Late({self._name!r})"
