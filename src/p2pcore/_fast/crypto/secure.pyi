from typing import final

from p2pcore._fast.chain.layer import Layer

class Cork(Layer):
    most: int
    sealed: int

@final
class PlainChannel(Cork):
    def __new__(cls) -> PlainChannel: ...

@final
class NoiseChannel(Cork):
    def __new__(cls, send_key: bytes, receive_key: bytes) -> NoiseChannel: ...
