"""Makes a host of the Python peer from the options of ../README.md.

Comes in: the command line, files with a network key and with certificates. Goes out: parsed options, a Host.
If p2pcore lacks something, its own error gives the reason. Uses public names only.
"""

from __future__ import annotations

import argparse
from typing import Any

from common import Wrong
from p2pcore import Host, Limits, Supervisor, TcpOptions, Worker

SILENT = frozenset({"up", "down", "small", "stream", "pingpong", "conn", "idle"})
"""Measurements. Their dialer does nothing else: it neither identifies nor serves."""
SERVING = frozenset({"listen", "relay"})
OPERATIONS = SILENT | {"ping", "identify", "echo", "streams", "halfclose", "reset"}
SECURITY = {"noise": ("noise",), "tls": ("tls",), "plaintext": ("plaintext",), "both": ("noise", "tls")}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the contract. Raises Wrong for an unknown operation."""
    parser = argparse.ArgumentParser(prog="peer.py", allow_abbrev=False)
    parser.add_argument("op")
    parser.add_argument("-to")
    parser.add_argument("-addr", default="/ip4/127.0.0.1/tcp/0")
    parser.add_argument("-sec", default="noise", choices=list(SECURITY))
    parser.add_argument("-mux", default="yamux", choices=["yamux", "mplex"])
    for name in ("-psk", "-cert", "-key", "-ca", "-relay"):
        parser.add_argument(name)
    for name in ("-bare", "-handler", "-share"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("-limit", type=int, default=0)
    parser.add_argument("-workers", type=int, default=1)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("-c", type=int)
    parser.add_argument("-bytes", type=int, default=1 << 30)
    parser.add_argument("-size", type=int)
    options = parser.parse_args(arguments)
    unknown = set(options.op.split(",")) - OPERATIONS
    if options.op not in SERVING and unknown:
        raise Wrong(f"no such operation: {', '.join(sorted(unknown))}")
    if options.op not in SERVING and not options.to:
        raise Wrong("-to is missing")
    return options


def make_host(options: argparse.Namespace) -> Host:
    """A host that is not started yet. Raises ValueError, OSError or P2PError if p2pcore cannot do it."""
    ops = set(options.op.split(","))
    quiet = options.bare or bool(ops & SILENT)
    serves = options.op == "listen"
    return Host(
        listen=_addresses(options, ops),
        security=SECURITY[options.sec],
        muxers=(options.mux,),
        ping=not quiet,
        identify=not quiet,
        perf=serves,
        echo=serves,
        limits=Limits(max_conns_per_peer=None),  # they may hold hundreds with one peer, as Go's
        **_extras(options),
    )


def make_supervisor(options: argparse.Namespace) -> Supervisor:
    """A relay of several processes, not started yet. Raises ValueError, OSError or P2PError."""
    return Supervisor(
        make_worker, (options,), workers=options.workers, listen=_addresses(options, {options.op})
    )


def make_worker(worker: Worker, options: argparse.Namespace) -> Host:
    """The factory of such a relay. It runs in each worker."""
    security, muxers = SECURITY[options.sec], (options.mux,)
    return worker.host(security=security, muxers=muxers, **_extras(options))


def _addresses(options: argparse.Namespace, ops: set[str]) -> list[str]:
    if options.relay:
        return [f"{options.relay}/p2p-circuit"]
    return options.addr.split(",") if ops & {*SERVING, "identify"} else []


def _extras(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments that only a few hosts have."""
    found: dict[str, Any] = {}
    if options.psk:
        found["psk"] = options.psk
    if options.share:
        found["tcp"] = TcpOptions(share_port=True)
    if options.cert or options.ca:
        found["websocket"] = _websocket(options)
    if options.op == "relay":
        found["relay_service"] = _relay(options.limit)
    return found


def _websocket(options: argparse.Namespace) -> Any:
    from p2pcore import WebCertificate, WebsocketOptions

    shown = WebCertificate.load(options.cert, options.key) if options.cert else None
    return WebsocketOptions(certificate=shown, ca_file=options.ca)


def _relay(limit: int) -> Any:
    """Options of a relay; `limit`: bytes each way, for two minutes at most; 0: no limit of either kind."""
    from p2pcore import RelayOptions

    many = 1 << 16
    return RelayOptions(
        max_reservations=many,
        max_reservations_per_ip=many,
        max_circuits_per_peer=many,
        max_circuits_per_ip=many,
        circuit_s=120 if limit else 0,
        circuit_bytes=limit,
    )
