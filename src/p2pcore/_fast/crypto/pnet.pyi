from typing import final

from p2pcore._fast.chain.layer import Layer

@final
class PnetLayer(Layer):
    def __new__(cls, key: bytes, nonce: bytes) -> PnetLayer: ...
    @property
    def has_agreed(self) -> bool: ...

def salsa20(key: bytes, nonce: bytes, n: int) -> bytes: ...
