"""What happens to a fleet, among the events of its host: `host.events(BusLost, BusBack)`."""

from __future__ import annotations

from dataclasses import dataclass

from p2pcore.swarm.events import Event


@dataclass(frozen=True, slots=True)
class BusLost(Event):
    """The engine of the fleet's bus is away. What concerns only this process works on. `error`: the cause."""

    error: BaseException | None


@dataclass(frozen=True, slots=True)
class BusBack(Event):
    """The engine is there again, or for the first time. Presence is being restored."""
