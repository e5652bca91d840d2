"""The option --admin: where the admin socket of a node is.

Comes in: text from the command line, or the environment. Goes out: a path, or a usage error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click

from p2pcore.admin import AdminClient
from p2pcore.cli.failure import Unreachable, reason

F = TypeVar("F", bound=Callable[..., Any])

VARIABLE = "P2PCORE_ADMIN"


def admin_option(function: F) -> F:
    """Adds --admin, as `admin`. The command needs it."""
    return click.option(
        "--admin",
        metavar="FILE",
        envvar=VARIABLE,
        required=True,
        help=f"The admin socket of the node, as in `p2pcore listen --admin FILE`. Default: ${VARIABLE}.",
    )(function)


@asynccontextmanager
async def asking(path: str) -> AsyncIterator[AdminClient]:
    """A conversation with the node whose admin socket is `path`. Raises Unreachable: nobody answers there."""
    try:
        client = await AdminClient.connect(path)
    except OSError as error:
        raise Unreachable(f"no node answers at {path}: {reason(error)}") from error
    try:
        yield client
    finally:
        client.close()
