from collections.abc import Callable, Coroutine
from typing import Any, final

from p2pcore._fast.chain.layer import Layer
from p2pcore._fast.loop.flush import Flushable
from p2pcore._fast.mux.stream import Stream

@final
class Allowance:
    refused_per_s: float
    refused_burst: float
    resets_per_s: float
    reset_burst: float
    def __new__(
        cls,
        refused_per_s: float = ...,
        refused_burst: float = ...,
        resets_per_s: float = ...,
        reset_burst: float = ...,
    ) -> Allowance: ...

@final
class Excess: ...

@final
class Linger(Flushable): ...

class Session(Layer):
    owner: Any
    paused: bool
    active_at: float
    @property
    def num_streams(self) -> int: ...
    @property
    def num_refused(self) -> int: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def has_arrived(self) -> bool: ...
    @property
    def close_reason(self) -> BaseException | None: ...
    def open_stream(self) -> Coroutine[Any, Any, Stream]: ...
    def accept_stream(self) -> Coroutine[Any, Any, Stream]: ...
    def set_stream_handler(self, handler: Callable[[Any], None] | None) -> None: ...
    def add_close_callback(self, callback: Callable[[BaseException | None], None]) -> None: ...
    def close(self, code: int = 0) -> Coroutine[Any, Any, None]: ...
    def abort(self, code: int = 0) -> None: ...
