from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Protocol, final

from p2pcore._fast.chain.bottom import Bottom

class _Link(Protocol):
    def carry(self, data: bytes, arrive: Callable[[bytes], None]) -> None: ...

@final
class MemoryWire(Bottom):
    def __new__(cls, loop: AbstractEventLoop) -> MemoryWire: ...
    def start(self) -> None: ...
    def cut(self) -> None: ...

def memory_pair(
    loop: AbstractEventLoop, links: tuple[_Link, _Link] | None = None
) -> tuple[MemoryWire, MemoryWire]: ...
