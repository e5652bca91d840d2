"""Works on values: multiaddrs, varints, peer ids. Each function does one round over all its values."""

from __future__ import annotations

from p2pcore import Multiaddr, PeerId
from p2pcore._fast.codec import varint

ED25519 = "12D3KooWATZi2wFwQxQ14Z3q24TDNWKap6f8W5ryLE6Da4RMfsxy"
RSA = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"
CID = "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe"

TEXTS = (
    "/ip4/127.0.0.1/tcp/4001",
    "/ip6/2001:8a0:7ac5:4201:3ac9:86ff:fe31:7095/tcp/8000/ws",
    f"/ip4/127.0.0.1/tcp/4001/p2p/{ED25519}",
    f"/ip4/198.51.100.1/tcp/4001/p2p/{RSA}/p2p-circuit/p2p/{ED25519}",
)
NUM_ADDRS = len(TEXTS)
BINARY = tuple(Multiaddr(text).to_bytes() for text in TEXTS)
PEERS = (ED25519, RSA, CID)
NUM_PEERS = len(PEERS)
VALUES = (5, 300, 7367777, 2**63 - 1)
NUM_VARINTS = len(VALUES)


def text_to_bytes() -> None:
    """Converts each text to bytes."""
    for text in TEXTS:
        Multiaddr(text).to_bytes()


def bytes_to_text() -> None:
    """Converts each address from bytes to text."""
    for data in BINARY:
        str(Multiaddr(data))


def varints() -> None:
    """Converts each number to bytes and back."""
    for value in VALUES:
        varint.decode(varint.encode(value))


def peer_ids() -> None:
    """Converts each text to an id."""
    for text in PEERS:
        PeerId(text)
