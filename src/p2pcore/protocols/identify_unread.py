"""What a peer has told about itself, as long as nobody has asked for it.

Comes in: the merged message of an identify, whose form and key have been checked. Goes out: an IdentifyInfo,
when somebody asks: only then the signature of its record is checked. Most connections end before that. Never
gives out anything of a record whose signature has not been checked, never keeps more than
MAX_IDENTIFY_UNREAD_BYTES.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from p2pcore import limits
from p2pcore.pb.identify_pb2 import Identify
from p2pcore.protocols.identify_message import IdentifyInfo, addrs_of, protocols_of, text_of, update
from p2pcore.values.record import unchecked_addrs
from p2pcore.values.scope import told_to

if TYPE_CHECKING:
    from p2pcore.values.peer_id import PeerId
    from p2pcore.values.scope import Scope


class Unread:
    """One message of a peer, unread. Make it with `of`.

    Attributes:
        protocols, agent_version: as in IdentifyInfo; peers that tell the same share them.
    """

    __slots__ = ("_data", "_peer", "agent_version", "protocols")

    def __init__(self, peer: PeerId, message: Identify, data: bytes) -> None:
        self._peer = peer
        self._data = data
        self.protocols = protocols_of(message.protocols)
        self.agent_version = text_of(message.agentVersion)

    @classmethod
    def of(cls, peer: PeerId, message: Identify) -> Self | None:
        """None: `message` is too long to be kept as it is, and has to be read now."""
        data = message.SerializeToString()
        return cls(peer, message, data) if len(data) <= limits.MAX_IDENTIFY_UNREAD_BYTES else None

    @property
    def size(self) -> int:
        """Bytes of the message."""
        return len(self._data)

    def read(self) -> IdentifyInfo:
        """What it says, after the checks of `update`."""
        info = update(IdentifyInfo(self._peer), Identify.FromString(self._data))
        assert info is not None, "its key was compared when it came"
        return info

    def tells_as(self, other: Unread) -> bool:
        """Whether both have the same addresses and the same record."""
        one, two = Identify.FromString(self._data), Identify.FromString(other._data)
        return one.signedPeerRecord == two.signedPeerRecord and one.listenAddrs == two.listenAddrs

    def may_lead_from(self, scope: Scope) -> bool:
        """Whether it has an address for us, at distance `scope` from its peer.

        No: nothing can be learned from it, whether its record is genuine or not.
        """
        message = Identify.FromString(self._data)
        claims = addrs_of(message.listenAddrs)
        return bool(told_to(scope, claims) or told_to(scope, unchecked_addrs(message.signedPeerRecord)))
