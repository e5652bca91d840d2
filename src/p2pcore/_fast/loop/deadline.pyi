from asyncio import AbstractEventLoop
from types import TracebackType
from typing import final

from p2pcore._fast.loop.flush import Flushable

@final
class Deadline(Flushable):
    def __new__(cls, loop: AbstractEventLoop, at: float) -> Deadline: ...
    def __enter__(self) -> Deadline: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
