"""Fails a test of a compiled module that logs an error, because that always means a bug.

Comes in: the log of a test. Goes out: a failure if it has an error. Never changes what a test does.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails the test if p2pcore or asyncio logged an error, unless the test has removed the records."""
    yield
    gc.collect(0)
    errors = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert not errors, errors
