from typing import final

from p2pcore._fast.bottom import Bottom
from p2pcore._fast.stream import Stream

@final
class StreamWire(Bottom):
    def __new__(cls, stream: Stream) -> StreamWire: ...
    def start(self) -> None: ...
