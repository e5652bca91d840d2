from typing import final

from p2pcore._fast.chain.bottom import Bottom
from p2pcore._fast.mux.stream import Stream

@final
class StreamWire(Bottom):
    def __new__(cls, stream: Stream) -> StreamWire: ...
    def start(self) -> None: ...
