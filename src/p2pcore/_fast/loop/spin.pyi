from asyncio import AbstractEventLoop
from typing import final

@final
class Spin:
    def __new__(cls, loop: AbstractEventLoop) -> Spin: ...
