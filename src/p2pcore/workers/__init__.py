"""One node in several processes on the same ports: a supervisor, and workers that share one identity.

Comes in: an importable function that makes a Host, addresses, a number of processes. Goes out: worker
processes. The supervisor starts, watches, replaces and drains them. Never forks a process that runs an event
loop: each worker is a fresh interpreter. See docs/workers.md.
"""

from __future__ import annotations

from p2pcore.workers.supervisor import Supervisor, WorkerEvent, serve
from p2pcore.workers.worker import Worker, WorkerStatus

__all__ = ["Supervisor", "Worker", "WorkerEvent", "WorkerStatus", "serve"]
