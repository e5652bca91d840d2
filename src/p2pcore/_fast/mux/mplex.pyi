from collections.abc import Coroutine
from typing import Any, final

from p2pcore._fast.mux.session import Allowance, Session
from p2pcore._fast.mux.stream import Stream

@final
class MplexStream(Stream):
    @property
    def conn(self) -> Any: ...
    @property
    def name(self) -> str: ...

@final
class MplexSession(Session):
    is_client: bool
    def __new__(
        cls,
        is_client: bool,
        *,
        max_inbound_streams: int = ...,
        max_outbound_streams: int = ...,
        max_stream_bytes: int = ...,
        max_buffered_bytes: int = ...,
        stall_s: float = ...,
        allowance: Allowance = ...,
        first_id: int = ...,
    ) -> MplexSession: ...
    def open_stream(self) -> Coroutine[Any, Any, MplexStream]: ...
    def accept_stream(self) -> Coroutine[Any, Any, MplexStream]: ...
    @property
    def num_buffered(self) -> int: ...
    @property
    def rtt(self) -> float: ...
