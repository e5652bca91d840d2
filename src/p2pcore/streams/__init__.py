"""What programs do with streams besides reading and writing."""

from p2pcore.streams.broadcast import Broadcast, broadcast

__all__ = ["Broadcast", "broadcast"]
