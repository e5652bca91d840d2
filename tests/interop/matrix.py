"""The matrix as data: which transport, security protocol, multiplexer and network key, and who can take part.

Goes out: `CELLS`, `ROUTES`, and the options of each for a listener, a dialer and a relay. If a stack cannot
do something, it is here once, with the reason, and in the table of interop/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from urllib.parse import quote, unquote

SECURITY = {"noise": "/noise", "tls": "/tls/1.0.0", "plaintext": "/plaintext/2.0.0"}
MUXERS = {"yamux": "/yamux/1.0.0", "mplex": "/mplex/6.7.0"}
ADDRESSES = {
    "tcp": ("/ip4/127.0.0.1/tcp/0",),
    "ws": ("/ip4/127.0.0.1/tcp/0/ws",),
    "wss": ("/ip4/127.0.0.1/tcp/0/tls/ws",),
    "shared": ("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/tcp/0/tls/ws"),
    "relayed": ("/ip4/127.0.0.1/tcp/0",),
}
"""The address of a listener by transport; a UNIX socket has a new path each time."""


@dataclass(frozen=True, slots=True)
class Material:
    """Files every peer can read.

    Attributes:
        certificate, key: self-signed, of 127.0.0.1, PEM.
        network: a private network key.
        sockets: a directory for UNIX sockets.
    """

    certificate: Path
    key: Path
    network: Path
    sockets: Path


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to build a connection."""

    transport: str
    security: str
    muxer: str
    private: bool = False

    def __str__(self) -> str:
        return "-".join((self.transport, self.security, self.muxer, *(["psk"] if self.private else [])))

    @property
    def is_secure_web(self) -> bool:
        """True if certificates take part."""
        return self.transport in ("wss", "shared")

    def common(self, material: Material) -> dict[str, object]:
        """Options of every peer in this cell."""
        options: dict[str, object] = {"sec": self.security, "mux": self.muxer}
        return options | ({"psk": material.network} if self.private else {})

    def listener(self, material: Material, name: str) -> dict[str, object]:
        """Options of its listener, or of its relay, which is peer `name`."""
        options = self.common(material)
        if self.is_secure_web:
            options |= {"cert": material.certificate, "key": material.key}
        if self.transport == "shared":
            options["share"] = True
        return options | {"addr": ",".join(spelled(addr, name) for addr in self.addresses(material))}

    def addresses(self, material: Material) -> tuple[str, ...]:
        """Where its listener listens."""
        if self.transport == "unix":
            return (f"/unix{material.sockets / str(self)}",)
        return ADDRESSES[self.transport]

    def connects(self, route: Route) -> tuple[str, str]:
        """What the dialer reports as agreed; for a relayed connection go-libp2p reports nothing."""
        if self.transport == "relayed" and route.dialer == "go":
            return "", ""
        return SECURITY[self.security], MUXERS[self.muxer]

    def dialer(self, material: Material, name: str = "") -> dict[str, object]:
        """Options of its dialer; a page in a browser has none."""
        if name == "browser":
            return {}
        return self.common(material) | ({"ca": material.certificate} if self.is_secure_web else {})

    def is_tender(self, route: Route) -> bool:
        """True if js-libp2p sends everything before it reads again, so others reset the stream."""
        return route.dialer == "js" and self.muxer == "mplex" and self.transport in ("ws", "wss")

    def lacks(self, dialer: str, listener: str) -> str:
        """Why these two cannot meet here; empty if they can."""
        if self.transport == "unix" and "go" in (dialer, listener):
            return "go-libp2p has no UNIX sockets"
        if self.transport == "shared" and listener == "js":
            return "js-libp2p cannot serve TCP and WebSocket on one port"
        if self.transport == "shared" and self.private and listener == "go":
            return "go-libp2p shares no port in a private network"
        return ""


def spelled(address: str, peer: str) -> str:
    """`address` as `peer` writes it: js-libp2p percent-encodes the path of a UNIX socket, others do not."""
    if not address.startswith("/unix/"):
        return address
    path, slash, identity = address.removeprefix("/unix/").partition("/p2p/")
    path = "/" + unquote(path).lstrip("/")
    return "/unix" + (f"/{quote(path, safe='')}" if peer == "js" else path) + slash + identity


WORKERS = "workers"
"""As the name of a relay: p2pcore in four processes."""


@dataclass(frozen=True, slots=True)
class Route:
    """The dialer, the listener, and the relay between them if there is one.

    Attributes:
        limit: bytes the relay passes on each way; 0: all.
    """

    dialer: str
    listener: str
    relay: str = ""
    limit: int = 0

    def __str__(self) -> str:
        return f"{self.dialer}-to-{self.listener}" + (f"-by-{self.relay}" if self.relay else "")

    @property
    def peers(self) -> tuple[str, ...]:
        """All that have to be built."""
        return tuple(name for name in (self.dialer, self.listener, self.relay_peer) if name)

    @property
    def relay_peer(self) -> str:
        """The peer that is the relay; "": there is none."""
        return "python" if self.relay == WORKERS else self.relay


def _cells(transport: str) -> list[Cell]:
    built = [Cell(transport, security, muxer) for security, muxer in product(SECURITY, MUXERS)]
    return [*built, Cell(transport, "noise", "yamux", private=True)]


DIRECT = [Route("go", "python"), Route("python", "go"), Route("js", "python"), Route("python", "js")]
CONTROLS = [Route("go", "js"), Route("js", "go"), Route("go", "go"), Route("js", "js")]
"""Pairs without p2pcore: a failure here is no fault of p2pcore."""
RELAYED = [
    Route("python", "python", "go"),
    Route("python", "python", "js"),
    Route("go", "js", "python"),
    Route("js", "go", "python"),
]
RELAYED_BY_WORKERS = [
    Route("go", "js", WORKERS),
    Route("js", "go", WORKERS),
    Route("go", "go", WORKERS),
    Route("python", "js", WORKERS),
    Route("js", "python", WORKERS),
]
RELAYED_CONTROLS = [Route("go", "js", "go"), Route("js", "go", "js")]
RELAYED_CORE = [
    *RELAYED,
    Route("python", "python", "python"),
    Route("go", "python", "python"),
    Route("python", "go", "python"),
    Route("js", "python", "python"),
    Route("python", "js", "python"),
    Route("go", "python", "go"),
    Route("python", "js", "js"),
    *RELAYED_BY_WORKERS,
]

TRANSPORTS = ("tcp", "unix", "ws", "wss", "shared", "relayed")
CORE = {
    Cell("tcp", "tls", "yamux"),
    Cell("tcp", "noise", "mplex"),
    Cell("tcp", "noise", "yamux", private=True),
    Cell("ws", "noise", "yamux"),
    Cell("wss", "noise", "yamux"),
    Cell("shared", "noise", "yamux"),
    Cell("relayed", "noise", "yamux"),
}
"""Cells that move the whole amount; others move less. test_pairs.py covers TCP with Noise and yamux."""


def routes(cell: Cell, controls: bool) -> list[Route]:
    """The pairs of this cell; `controls` adds pairs without p2pcore."""
    if cell.transport == "relayed":
        ours = RELAYED_CORE if cell in CORE else RELAYED
        return [*ours, *(RELAYED_CONTROLS if controls else ())]
    found = [*DIRECT, *(CONTROLS if controls else ())]
    return [route for route in found if not cell.lacks(route.dialer, route.listener)]


def meetings(controls: bool) -> list[tuple[Cell, Route]]:
    """The matrix, in an order in which a listener meets all its dialers one after another."""
    cells = [cell for transport in TRANSPORTS for cell in _cells(transport)]
    found = [(cell, route) for cell in cells for route in routes(cell, controls)]
    return sorted(found, key=lambda each: (str(each[0]), each[1].relay, each[1].listener))
