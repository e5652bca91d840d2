from collections.abc import Iterable
from typing import final

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
    def __new__(cls, labels: tuple[str, ...], bounds: Iterable[float]) -> ConnRow: ...
    def add(self) -> None: ...
    def end(self, seconds: float) -> None: ...

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
