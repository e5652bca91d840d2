from asyncio import AbstractEventLoop
from typing import final

class Flushable: ...

@final
class Flusher:
    def __new__(cls, loop: AbstractEventLoop) -> Flusher: ...
