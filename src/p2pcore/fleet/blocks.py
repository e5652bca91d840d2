"""The block list of a fleet: peers and networks that no process of it accepts or dials.

Comes in: what to block. Goes out: entries of a bucket, which each process watches and applies by the gater of
its own host; that closes what is open. Nothing is asked of the network when a peer connects. While the engine
is away, the list stays as it was.
"""

from __future__ import annotations

import json
import logging
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from p2pcore import options
from p2pcore.errors import BusDown, LimitExceeded, P2PError
from p2pcore.limits import FLEET_MAX_BLOCKS, FLEET_MAX_REASON_CHARS
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    from p2pcore.fleet.bus import Bucket, Bus, Subscription
    from p2pcore.swarm.gater import BasicGater

logger = logging.getLogger("p2pcore.fleet")

_PEER: Final = "peer"
_NET: Final = "net"


class Blocks:
    """See above.

    Args:
        bus: of the fleet. name: of the bucket. gater: of the host.

    Attributes:
        reasons: what is blocked now, and why. A peer is the text of its id; an address ends with /32 or /128.
    """

    def __init__(self, bus: Bus, name: str, gater: BasicGater) -> None:
        self._bus = bus
        self._name = name
        self._gater = gater
        self._bucket: Bucket | None = None
        self._ours: set[str] = set()  # what the gater did not block before
        self.reasons: dict[str, str] = {}

    async def watch(self) -> Subscription:
        """Applies the list, and its changes from now on. Raises BusDown."""
        self._bucket = await self._bus.bucket(self._name)
        first = await self._bucket.watch(_PEER, self._changed)
        try:
            return _Two(first, await self._bucket.watch(_NET, self._changed))
        except BaseException:
            first.close()
            raise

    async def block(self, what: PeerId | str, reason: str) -> None:
        """Puts a peer or a network on the list. Raises BusDown, LimitExceeded, IdentityError, ValueError."""
        options.text("reason", reason, FLEET_MAX_REASON_CHARS)
        kind, text = _parsed(what)
        if len(self.reasons) >= FLEET_MAX_BLOCKS and text not in self.reasons:
            raise LimitExceeded("FLEET_MAX_BLOCKS", len(self.reasons) + 1, FLEET_MAX_BLOCKS)
        said = json.dumps({"what": text, "reason": reason}).encode()
        await self._need().put({_key(kind, text): said})
        self._apply(kind, text, reason)

    async def unblock(self, what: PeerId | str) -> None:
        """Takes it from the list. Raises BusDown, IdentityError, ValueError."""
        kind, text = _parsed(what)
        bucket, key = self._need(), _key(kind, text)
        if text in self.reasons:  # an engine that crashes may find again what was only deleted
            await bucket.put({key: json.dumps({"what": text, "is_lifted": True}).encode()})
        await bucket.put({key: None})
        self._lift(kind, text)

    def _need(self) -> Bucket:
        if self._bucket is None:
            raise BusDown("the engine of the bus has not been reached yet")
        return self._bucket

    def _changed(self, key: str, value: bytes | None) -> None:
        """An entry of the bucket."""
        kind = key.partition(".")[0]
        if value is None:
            self._lift(kind, _text(key))
            return
        try:
            said = json.loads(value)
            found, text = _parsed(said["what"])
            is_lifted = said.get("is_lifted", False)
            reason = "" if is_lifted else str(said["reason"])
        except (ValueError, KeyError, TypeError, AttributeError, P2PError) as error:
            logger.warning("an entry of the block list cannot be read: %s: %s", key, error)
            return
        if found != kind or _key(kind, text) != key:
            return
        if is_lifted:
            self._lift(kind, text)
        else:
            self._apply(kind, text, reason)

    def _apply(self, kind: str, text: str, reason: str) -> None:
        is_new = text not in self.reasons
        if is_new and len(self.reasons) >= FLEET_MAX_BLOCKS:
            logger.warning("the block list is full: %s is not blocked", text)
            return
        self.reasons[text] = reason
        if not is_new:
            return
        gater = self._gater
        if kind == _NET and text not in gater.blocked_subnets:
            self._ours.add(text)
            gater.block_subnet(text)
        elif kind == _PEER and gater.intercept_peer_dial(PeerId(text)):
            self._ours.add(text)
            gater.block_peer(text)

    def _lift(self, kind: str, text: str) -> None:
        self.reasons.pop(text, None)
        if text not in self._ours:
            return
        self._ours.discard(text)
        if kind == _NET:
            self._gater.unblock_subnet(text)
        else:
            self._gater.unblock_peer(text)


class _Two:
    """Two subscriptions as one."""

    def __init__(self, first: Subscription, second: Subscription) -> None:
        self._both = first, second

    def close(self) -> None:
        for each in self._both:
            each.close()


def _parsed(what: object) -> tuple[str, str]:
    """Whether `what` is a peer or a network, and its text. Raises IdentityError, ValueError, TypeError."""
    if isinstance(what, PeerId):
        return _PEER, str(what)
    if isinstance(what, str) and not set(what) & set(".:/"):
        return _PEER, str(PeerId(what))
    options.network("what", what)
    return _NET, str(ip_network(what))  # type: ignore[arg-type]


def _key(kind: str, text: str) -> str:
    """The key of an entry. It has no characters that a key must not have."""
    return f"{kind}.{text.replace('.', '-').replace(':', '_').replace('/', '-in-')}"


def _text(key: str) -> str:
    """What the entry with this key blocks."""
    return key.partition(".")[2].replace("-in-", "/").replace("-", ".").replace("_", ":")
