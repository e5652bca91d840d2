from typing import final

from typing_extensions import Buffer

@final
class Block(Buffer):
    size: int
    def __new__(cls, size: int) -> Block: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class BlockPool:
    def __new__(cls, block_size: int, most: int) -> BlockPool: ...
    @property
    def num_free(self) -> int: ...

@final
class ByteQueue:
    size: int
    def __len__(self) -> int: ...
