"""fleet: one service in many processes and on many machines, over a message bus that people already run.

Comes in: hosts, and a bus: in memory, between the workers of one machine, or NATS. Goes out: where a peer is
connected, requests to it from anywhere, messages to all. It decides nothing that a host without a fleet
needs, and no host imports it. Level 6. docs/fleet.md
"""

from __future__ import annotations
