from asyncio import AbstractEventLoop
from typing import final

from p2pcore._fast.chain.bottom import Bottom

@final
class MemoryWire(Bottom):
    def __new__(cls, loop: AbstractEventLoop) -> MemoryWire: ...
    def start(self) -> None: ...

def memory_pair(loop: AbstractEventLoop) -> tuple[MemoryWire, MemoryWire]: ...
