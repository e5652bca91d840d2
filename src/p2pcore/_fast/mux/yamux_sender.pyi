from typing import final

from p2pcore._fast.mux.session import Session
from p2pcore._fast.mux.stream import Stream
from p2pcore.interfaces import CapableConn

@final
class YamuxStream(Stream):
    @property
    def conn(self) -> CapableConn | None: ...
    @property
    def windows(self) -> tuple[int, int, int]: ...

class YamuxSender(Session):
    rtt: float
