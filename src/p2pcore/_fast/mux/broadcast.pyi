from typing import Any

def write_to_each(
    streams: list[Any], begin: int, end: int, data: bytes, slow: list[Any], gone: list[Any]
) -> None: ...
