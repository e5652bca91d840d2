from asyncio import AbstractEventLoop
from typing import final

@final
class Rota:
    def __new__(cls, loop: AbstractEventLoop) -> Rota: ...
