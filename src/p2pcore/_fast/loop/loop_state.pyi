from asyncio import AbstractEventLoop
from collections import OrderedDict
from typing import final

from p2pcore._fast.loop.flush import Flushable

@final
class LoopState:
    loop: AbstractEventLoop
    is_debug: bool
    ciphered: OrderedDict[Flushable, None]
    def __new__(cls, loop: AbstractEventLoop) -> LoopState: ...
    @property
    def num_watched(self) -> int: ...
    @property
    def num_in_line(self) -> int: ...
    @property
    def num_unfinished(self) -> int: ...
    @property
    def num_free_records(self) -> int: ...
    spin_s: float
    @property
    def is_spinning(self) -> bool: ...

def loop_state(loop: AbstractEventLoop) -> LoopState: ...
