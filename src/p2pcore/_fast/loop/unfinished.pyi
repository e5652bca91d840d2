from typing import final

from p2pcore._fast.loop.looks import Looks

@final
class Unfinished(Looks): ...
