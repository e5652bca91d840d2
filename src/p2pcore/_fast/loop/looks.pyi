from asyncio import AbstractEventLoop

class Looks:
    def __new__(cls, loop: AbstractEventLoop) -> Looks: ...
