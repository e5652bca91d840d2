"""An HTTP port for scrapers and probes: /metrics, /healthz, /readyz and /version.

Comes in: one host, several with names, or a supervisor of workers; GET requests. Goes out: Prometheus text in
the format that the client prefers, JSON. It shows addresses and protocols of the node: keep the port private.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from p2pcore import options
from p2pcore.metrics import text
from p2pcore.metrics.family import Family, by_host
from p2pcore.metrics.http_server import JSON, PLAIN, Answer, HttpServer
from p2pcore.metrics.process import process_families
from p2pcore.values.version import __version__

if TYPE_CHECKING:
    from p2pcore.metrics.health import Health, Report

_OPENMETRICS = "application/openmetrics-text"


class Measured(Protocol):
    """The metrics of a host or of a supervisor."""

    def families(self) -> Sequence[Family] | Awaitable[Sequence[Family]]:
        """All families, those of the process too."""

    def own_families(self) -> Sequence[Family] | Awaitable[Sequence[Family]]:
        """All families but those of this process."""


class Observable(Protocol):
    """What can be served: a Host, or a Supervisor."""

    @property
    def metrics(self) -> Measured: ...
    @property
    def alive(self) -> Health:
        """Whether it lives: otherwise restart it."""

    @property
    def ready(self) -> Health:
        """Whether it should get new work."""


class MetricsServer:
    """Serves the metrics and the health of a node. An async context manager.

    Args:
        source: a Host, a Supervisor, or several of them by name. With names, each sample has a label `host`.
            The answer about health is bad if one of them is.
        address: "127.0.0.1:9464", "[::1]:9464", ":9464" or "unix:/path". Port 0 takes a free port.
        mode: permissions of the file of a UNIX socket.

    Raises:
        ValueError: `address` is malformed. TypeError: `source` is no such object.
    """

    def __init__(
        self,
        source: Observable | Mapping[str, Observable],
        address: str = "127.0.0.1:9464",
        *,
        mode: int = 0o600,
    ) -> None:
        self._sources = dict(source) if isinstance(source, Mapping) else {"": source}
        for each in self._sources.values():
            if not hasattr(each, "metrics") or not hasattr(each, "ready"):
                raise TypeError(f"source must be a Host or a Supervisor, not {each!r}")
        options.text("address", address, 4096)
        options.file_mode("mode", mode)
        self._server = HttpServer(address, self.ask, mode)

    @property
    def address(self) -> str:
        """Where it listens, with the real port."""
        return self._server.address

    async def start(self) -> None:
        """Listens. Raises ListenError: the address cannot be used."""
        await self._server.start()

    async def close(self) -> None:
        """Stops. Idempotent."""
        await self._server.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def ask(self, path: str, accept: str = "") -> Answer:
        """The answer to GET `path`. For programs that have an HTTP server of their own."""
        if path == "/metrics":
            return await self._metrics(_OPENMETRICS in accept)
        if path in ("/healthz", "/readyz"):
            return self._health(path == "/readyz")
        if path == "/version":
            return Answer(json.dumps({"p2pcore": __version__}).encode() + b"\n", content_type=JSON)
        return Answer(b"", HTTPStatus.NOT_FOUND, PLAIN)

    async def _metrics(self, openmetrics: bool) -> Answer:
        if "" in self._sources:
            families = await _awaited(self._sources[""].metrics.families())
        else:
            each = {name: await _awaited(one.metrics.own_families()) for name, one in self._sources.items()}
            families = [*by_host(each), *process_families()]
        shown = text.render(families, openmetrics)
        return Answer(shown.encode(), content_type=text.content_type(openmetrics))

    def _health(self, is_ready: bool) -> Answer:
        reports = {
            name: (each.ready if is_ready else each.alive).report() for name, each in self._sources.items()
        }
        report = worst(reports)
        return Answer(report.body(), report.http_status, JSON)


async def _awaited(families: Sequence[Family] | Awaitable[Sequence[Family]]) -> Sequence[Family]:
    return await families if inspect.isawaitable(families) else families


def worst(reports: Mapping[str, Report]) -> Report:
    """The first report that is bad, or the first. Its checks have the name of their node in front."""
    chosen = next((each for each in reports.values() if not each.is_good), next(iter(reports.values())))
    if len(reports) == 1:
        return chosen
    checks = {
        f"{name}: {check}": said for name, each in reports.items() for check, said in each.checks.items()
    }
    return type(chosen)(chosen.is_good, chosen.status, chosen.since, checks)
