from asyncio import AbstractEventLoop
from typing import final

@final
class Timers:
    def __new__(cls, loop: AbstractEventLoop) -> Timers: ...
