"""The options that only `listen` has: ports, permissions, certificates, relaying.

Comes in: text from the command line. Goes out: a ServingOptions, which gives keyword arguments of Host.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from p2pcore import (
    AccessLogOptions,
    Limits,
    Multiaddr,
    RelayOptions,
    TcpOptions,
    UnixOptions,
    WebCertificate,
    WebsocketOptions,
)
from p2pcore.cli.failure import CommandFailed
from p2pcore.cli.gathered import gathered
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.params import CountType, SizeType
from p2pcore.limits import MAX_COUNT, MIN_MEMORY_BYTES
from p2pcore.metrics.http_server import parse_address

if TYPE_CHECKING:
    from click import Context, Parameter

    ModeParam = click.ParamType[int]
    TextParam = click.ParamType[str]
else:  # generic in the newest click only
    ModeParam = TextParam = click.ParamType


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """The values of the options below."""

    share_port: bool
    unix_mode: int | None
    certificate: str | None
    certificate_key: str | None
    self_signed: bool
    relay: bool
    relay_unlimited: bool
    max_conns: int | None
    max_streams: int | None
    memory: int | None
    metrics: str | None
    access_log: str | None
    access_streams: bool
    log_format: str

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.certificate_key is None):
            self._wrong("--tls-cert and --tls-key must be given together")
        if self.access_streams and self.access_log is None:
            self._wrong("--access-streams needs --access-log")
        if self.certificate is not None and self.self_signed:
            self._wrong("--tls-self-signed and --tls-cert cannot be given together")

    @property
    def limits(self) -> Limits:
        """The limits of the node. Those that were not given follow from the machine."""
        given = {name: getattr(self, name) for name in ("max_conns", "max_streams", "memory")}
        return Limits(**{name: value for name, value in given.items() if value is not None})

    def check(self, addrs: Iterable[Multiaddr]) -> None:
        """Raises a usage error if these options do not fit `addrs`."""
        for addr in addrs:
            names = [protocol.name for protocol in addr.protocols()]
            is_secure = names[-1] == "wss" or (names[-1] == "ws" and "tls" in names)
            if is_secure and self.certificate is None and not self.self_signed:
                self._wrong(f"{addr} needs a certificate: --tls-cert and --tls-key, or --tls-self-signed")

    def settings(self, node: NodeOptions, addrs: Iterable[Multiaddr]) -> dict[str, Any]:
        """Keyword arguments of Host, for a node that listens on `addrs`. Raises CommandFailed, OSError."""
        return {
            "tcp": TcpOptions(share_port=self.share_port),
            "unix": UnixOptions(mode=self.unix_mode),
            "websocket": WebsocketOptions(
                certificate=self._certificate(addrs), ca_file=node.ca_file, verify=node.verify
            ),
            "relay_service": self._relay(),
            "access_log": self.access_log is not None and AccessLogOptions(streams=self.access_streams),
        }

    def _relay(self) -> RelayOptions | None:
        if self.relay_unlimited:
            return RelayOptions(circuit_s=0, circuit_bytes=0)
        return RelayOptions() if self.relay else None

    def _certificate(self, addrs: Iterable[Multiaddr]) -> WebCertificate | None:
        if self.certificate is not None and self.certificate_key is not None:
            try:
                return WebCertificate.load(self.certificate, self.certificate_key)
            except ValueError as error:
                raise CommandFailed(f"{self.certificate}, {self.certificate_key}: {error}") from error
        return WebCertificate.self_signed(*_names(addrs)) if self.self_signed else None

    def _wrong(self, text: str) -> None:
        raise click.UsageError(text, click.get_current_context())


def _names(addrs: Iterable[Multiaddr]) -> list[str]:
    """The host names and IP addresses in `addrs`, and localhost."""
    hosts = (addr.get(name) for addr in addrs for name in ("sni", "ip4", "ip6"))
    return list(dict.fromkeys(["localhost", *(host for host in hosts if host)]))


class HttpAddressType(TextParam):
    """An address for HTTP: HOST:PORT or unix:PATH."""

    name = "address"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> str:
        try:
            parse_address(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class ModeType(ModeParam):
    """The permissions of a file, in octal."""

    name = "mode"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> int:
        text = str(value)
        if not text.isascii() or not text.isdigit() or set(text) & {"8", "9"} or int(text, 8) > 0o777:
            self.fail(f"{text!r} are not permissions in octal such as 600", param, ctx)
        return int(text, 8)


class PositiveType(CountType):
    """A whole number, 1 or more, that fits the option of Limits."""

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> int:
        count = super().convert(value, param, ctx)
        if not 1 <= count <= MAX_COUNT:
            self.fail(f"{value!r} is not a whole number from 1 to {MAX_COUNT}", param, ctx)
        return count


class MemoryType(SizeType):
    """A number of bytes from 1 MiB."""

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> int:
        size = super().convert(value, param, ctx)
        if size < MIN_MEMORY_BYTES:
            self.fail(f"{value} is less than {MIN_MEMORY_BYTES // 2**20} MiB", param, ctx)
        return size


_OPTIONS = (
    click.option(
        "--share-port",
        is_flag=True,
        help="Let addresses with the same IP address and port 0 share one port. Addresses with the same IP "
        "address and another port always share it.",
    ),
    click.option(
        "--unix-mode",
        type=ModeType(),
        metavar="OCTAL",
        help="Permissions of the files of /unix addresses. A user who may write to the file may connect.",
    ),
    click.option(
        "--tls-cert",
        "certificate",
        metavar="FILE",
        help="File with the certificate and its chain (PEM) for /tls/ws addresses; needs --tls-key.",
    ),
    click.option(
        "--tls-key", "certificate_key", metavar="FILE", help="File with the private key (PEM) of --tls-cert."
    ),
    click.option(
        "--tls-self-signed",
        "self_signed",
        is_flag=True,
        help="Make a certificate for /tls/ws addresses. Nobody trusts it; it is for tests.",
    ),
    click.option(
        "--relay", is_flag=True, help="Relay connections of other peers, with limits of all workers together."
    ),
    click.option("--relay-unlimited", is_flag=True, help="Like --relay, without limits of time and bytes."),
    click.option(
        "--max-conns",
        type=PositiveType(),
        metavar="N",
        help="Connections, of all workers together. Default: what memory and open files allow.",
    ),
    click.option(
        "--max-streams",
        type=PositiveType(),
        metavar="N",
        help="Streams, of all workers together. Default: what half of the memory allows.",
    ),
    click.option(
        "--memory",
        type=MemoryType(),
        metavar="SIZE",
        help="Memory for connections and streams, of all workers together, such as 512MiB. Default: half of "
        "what the process may have.",
    ),
    click.option(
        "--metrics",
        type=HttpAddressType(),
        metavar="ADDRESS",
        help="Serve /metrics, /healthz and /readyz by HTTP on this address, such as 127.0.0.1:9464 or "
        "unix:/run/p2pcore.sock. Whoever can reach it sees addresses and protocols of this node.",
    ),
    click.option(
        "--access-log",
        metavar="FILE",
        help="Append a line to FILE when a connection ends, is refused or fails; - is standard error.",
    ),
    click.option("--access-streams", is_flag=True, help="Log there each stream that a peer opened, too."),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="Form of log lines, those of --access-log too. Default: text.",
    ),
)

serving_options = gathered(ServingOptions, "serving", _OPTIONS)
"""Gives a command the values of these options, as `serving`."""
