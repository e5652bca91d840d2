from collections.abc import Callable, Hashable, Iterable
from typing import Any, final
from weakref import WeakSet

CALM: int
CAREFUL: int
TIGHT: int
FULL: int

@final
class Share:
    conns: int
    streams: int
    handlers: int
    held: int
    @property
    def is_unused(self) -> bool: ...

class Ended(WeakSet[Any]):
    def __init__(self) -> None: ...
    def watch(self, ledger: Ledger) -> None: ...

@final
class Ledger:
    max_streams: int
    max_streams_per_conn: int
    max_streams_per_peer: int
    memory: int
    num_conns: int
    num_streams: int
    unread: int
    unsent: int
    bytes_in: int
    bytes_out: int
    used: int
    state: int
    on_state: Callable[[int, int], None] | None
    @property
    def ended(self) -> Ended: ...
    def __new__(
        cls,
        max_streams: int = 0,
        max_streams_per_conn: int = 0,
        max_streams_per_peer: int = 0,
        memory: int = 0,
    ) -> Ledger: ...
    @property
    def num_peers(self) -> int: ...
    @property
    def peaks(self) -> dict[str, int]: ...
    @property
    def refused(self) -> dict[str, int]: ...
    def share(self, peer: Hashable) -> Share: ...
    def forget(self, peer: Hashable) -> None: ...
    def refuse(
        self, limit: str, who: object, used: int, maximum: int, setting: str | None = None
    ) -> None: ...
    def recount(self, sessions: Iterable[Any]) -> dict[str, tuple[int, int]]: ...
