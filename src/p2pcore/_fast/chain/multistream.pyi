from p2pcore._fast.loop.loop_state import Flushable

HEADER: bytes
NOT_AVAILABLE: bytes

def spoken(first: bytes) -> str | None: ...

class Answer(Flushable): ...
