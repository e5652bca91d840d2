from collections.abc import Coroutine
from typing import Any, final

from p2pcore._fast.mux.session import Allowance, Session
from p2pcore._fast.mux.stream import Stream

@final
class YamuxStream(Stream):
    @property
    def conn(self) -> Any: ...
    @property
    def windows(self) -> tuple[int, int, int]: ...

@final
class YamuxSession(Session):
    rtt: float
    def __new__(
        cls,
        is_client: bool,
        *,
        max_inbound_streams: int = ...,
        max_outbound_streams: int = ...,
        ack_backlog: int = ...,
        max_window_bytes: int = ...,
        window_budget_bytes: int = ...,
        keepalive_s: float = ...,
        allowance: Allowance = ...,
        first_id: int = ...,
    ) -> YamuxSession: ...
    def open_stream(self) -> Coroutine[Any, Any, YamuxStream]: ...
    def accept_stream(self) -> Coroutine[Any, Any, YamuxStream]: ...
    @property
    def is_client(self) -> bool: ...
    def ping(self) -> Coroutine[Any, Any, float]: ...
