from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol, final

class _Addr(Protocol):
    def to_bytes(self) -> bytes: ...

@final
class Histogram:
    bounds: tuple[float, ...]
    def __new__(cls, bounds: Iterable[float]) -> Histogram: ...
    def observe(self, value: float) -> None: ...
    def read(self) -> tuple[list[int], float]: ...

@final
class ConnRow:
    labels: tuple[str, ...]
    opened: int
    closed: int
    durations: Histogram
    handshakes: Histogram | None
    def __new__(cls, labels: tuple[str, ...], bounds: Iterable[float]) -> ConnRow: ...
    @property
    def key_types(self) -> list[int]: ...

@final
class ConnRows:
    def __new__(
        cls, make: Callable[[Any, int], ConnRow], handshake_bounds: Iterable[float], most: int
    ) -> ConnRows: ...
    def add(self, kind: Hashable, addr: _Addr | None, key_type: int) -> None: ...
    def end(self, kind: Hashable, addr: _Addr | None, seconds: float) -> None: ...
    def dialled(self, kind: Hashable, addr: _Addr | None, seconds: float) -> None: ...

@final
class Traffic:
    labels: tuple[str, str]
    opened: int
    open: int
    received: int
    sent: int
    errors: int
    def __new__(cls, labels: tuple[str, str]) -> Traffic: ...
    def apart(self) -> Traffic: ...

@final
class Protocols:
    direction: str
    def __new__(cls, direction: str, most: int, rest: str) -> Protocols: ...
    def row(self, protocol: str) -> Traffic: ...
    def by_name(self) -> dict[str, Traffic]: ...
