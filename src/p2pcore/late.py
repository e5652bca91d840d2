"""A module that is imported when one of its names is first used, because most programs never use it.

Comes in: the name of a module. Goes out: its attributes. Never imports anything before. Type checkers see an
ordinary import:

    if TYPE_CHECKING:
        from p2pcore.swarm import events
    else:
        events = Late("p2pcore.swarm.events")
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any


class Late:
    """Stands for the module `name`. Use it off the hot paths: a look-up of a name takes 0.2 us."""

    def __init__(self, name: str) -> None:
        self._name = name

    @cached_property
    def _module(self) -> ModuleType:
        return import_module(self._name)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._module, attribute)

    def __repr__(self) -> str:
        return f"Late({self._name!r})"
