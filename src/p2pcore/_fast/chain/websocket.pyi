from typing import final

from p2pcore._fast.chain.layer import Layer

@final
class WebsocketLayer(Layer):
    def __new__(cls, is_client: bool) -> WebsocketLayer: ...
