from p2pcore._fast.loop.flush import Flushable

HEADER: bytes
NOT_AVAILABLE: bytes

def spoken(first: bytes) -> str | None: ...

class Answer(Flushable): ...
