"""Worker processes that several tests share, because they take a second to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import remote_bus

from loop_thread import LoopThread
from p2pcore import Supervisor

WORKERS = 3


@pytest.fixture(scope="session")
def worker_processes() -> Iterator[tuple[LoopThread, Supervisor]]:
    """A supervisor with workers whose buses a test drives, and the thread where it runs."""
    thread = LoopThread()
    supervisor = thread.started(remote_bus.make, workers=WORKERS)
    try:
        yield thread, supervisor
    finally:
        thread.result(supervisor.drain(0))
        thread.close()
