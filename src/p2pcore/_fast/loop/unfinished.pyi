from asyncio import AbstractEventLoop
from typing import final

@final
class Unfinished:
    def __new__(cls, loop: AbstractEventLoop) -> Unfinished: ...
