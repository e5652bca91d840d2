from collections.abc import Callable
from typing import final

from p2pcore._fast.chain.layer import Layer
from p2pcore._fast.loop.flush import Flushable
from p2pcore._fast.mux.stream import Stream

@final
class SpliceHalf(Layer): ...

@final
class Splice(Flushable):
    is_closed: bool
    def __new__(
        cls,
        one: Stream,
        other: Stream,
        max_bytes: int,
        seconds: float,
        ended: Callable[[BaseException | None], object],
    ) -> Splice: ...
    @property
    def passed(self) -> tuple[int, int]: ...
    def start(self) -> None: ...
    def abort(self, error: BaseException) -> None: ...
