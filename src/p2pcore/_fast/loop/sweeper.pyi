from asyncio import AbstractEventLoop
from typing import final

@final
class Sweeper:
    def __new__(cls, loop: AbstractEventLoop) -> Sweeper: ...
