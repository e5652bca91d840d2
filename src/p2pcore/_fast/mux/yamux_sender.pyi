from typing import Any, final

from p2pcore._fast.mux.session import Session
from p2pcore._fast.mux.stream import Stream

@final
class YamuxStream(Stream):
    @property
    def conn(self) -> Any: ...
    @property
    def windows(self) -> tuple[int, int, int]: ...

class YamuxSender(Session):
    rtt: float
