"""One node in several processes on the same ports: a supervisor, and workers that share its identity.

Comes in: an importable function that makes a Host, addresses, a number of processes. Goes out: workers that
are started, watched, replaced and drained. Never forks a process that runs an event loop: workers are fresh
interpreters. docs/workers.md has the whole story.
"""

from __future__ import annotations

from p2pcore.workers.supervisor import Supervisor, WorkerEvent, serve
from p2pcore.workers.worker import Worker, WorkerStatus

__all__ = ["Supervisor", "Worker", "WorkerEvent", "WorkerStatus", "serve"]
