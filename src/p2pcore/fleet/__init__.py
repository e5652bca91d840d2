"""fleet: one service in many processes and on many machines, over a message bus that people already run.

Comes in: hosts, and a bus: in memory, between the workers of one machine, or NATS. Goes out: where a peer
is connected, requests to it from anywhere, messages to all. It decides nothing that a host without a fleet
needs, and no host imports it. Level 6. docs/fleet.md
"""

from p2pcore.aio.turn import Turn
from p2pcore.codes import Undelivered
from p2pcore.errors import BusDown, BusError, BusStreamLost, NobodyListens, NotDelivered
from p2pcore.fleet.bus import Bucket, Bus, BusMessage, Subscription
from p2pcore.fleet.caps import FleetCaps
from p2pcore.fleet.directory import Place
from p2pcore.fleet.events import BusBack, BusLost
from p2pcore.fleet.fleet import Fleet
from p2pcore.fleet.memory_bus import MemoryBus, MemoryEngine
from p2pcore.fleet.nats_bus import NatsBus
from p2pcore.fleet.topics import TopicSubscription
from p2pcore.fleet.workers_bus import WorkersBus

__all__ = [
    "Bucket",
    "Bus",
    "BusBack",
    "BusDown",
    "BusError",
    "BusLost",
    "BusMessage",
    "BusStreamLost",
    "Fleet",
    "FleetCaps",
    "MemoryBus",
    "MemoryEngine",
    "NatsBus",
    "NobodyListens",
    "NotDelivered",
    "Place",
    "Subscription",
    "TopicSubscription",
    "Turn",
    "Undelivered",
    "WorkersBus",
]
