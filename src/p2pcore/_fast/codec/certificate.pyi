_Moment = tuple[int, int, int, int, int, int]

def read_usual(
    der: bytes,
) -> tuple[bytes, bytes, bytes, bytes, bytes, _Moment, _Moment] | None: ...
