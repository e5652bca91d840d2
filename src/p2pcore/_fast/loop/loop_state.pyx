"""What all connections of one event loop share.

Comes in: an event loop. Goes out: its receive buffer, its free record buffers, and the parts with one job each:
`flusher`, `timers`, `sweeper`, `rota`, `unfinished`,
`spin`. The loop owns it. Never used from another thread than the loop's.
"""

import sys
from collections import OrderedDict

cimport cython

from p2pcore import limits

from p2pcore._fast.loop.buffer cimport Block, BlockPool
from p2pcore._fast.loop.flush cimport Flusher
from p2pcore._fast.loop.rota cimport Rota
from p2pcore._fast.loop.spin cimport Spin
from p2pcore._fast.loop.sweeper cimport Sweeper
from p2pcore._fast.loop.timers cimport Timers
from p2pcore._fast.loop.unfinished cimport Unfinished

cdef Py_ssize_t RECORD_BLOCK_BYTES = limits.MAX_NOISE_RECORD_BYTES + 2 + limits.MAX_HEADROOM_BYTES


@cython.final
cdef class LoopState:
    """Shared by all connections of one event loop; see loop_state()."""

    def __cinit__(self, loop):
        self.loop = loop
        self.of_loop = {"loop": loop}
        self.is_debug = loop.get_debug() or sys.flags.dev_mode
        self.receive = Block(limits.RECEIVE_BUFFER_BYTES)
        self.lend = self._lend
        self.records = BlockPool(RECORD_BLOCK_BYTES, limits.MAX_SPILL_BUFFERS)
        self.ciphered = OrderedDict()
        self.flusher = Flusher(loop)
        self.timers = Timers(loop)
        self.sweeper = Sweeper(loop)
        self.rota = Rota(loop)
        self.unfinished = Unfinished(loop)
        self.spin = Spin(loop)

    def _lend(self, sizehint):
        """The get_buffer of every wire."""
        return self.receive

    @property
    def num_watched(self):
        """Layers with a deadline running."""
        return len(self.timers.table)

    @property
    def num_in_line(self):
        """Connections with work that waits for its turn."""
        return len(self.rota.line)

    @property
    def num_unfinished(self):
        """Layers with a record or frame that the peer has begun, now or at the last look."""
        return len(self.unfinished.table)

    @property
    def num_free_records(self):
        return self.records.num_free

    @property
    def spin_s(self):
        """Seconds for which the loop looks for a quick answer before it sleeps, 0 (never) to limits.MAX_SPIN_S."""
        return self.spin.seconds

    @spin_s.setter
    def spin_s(self, double value):
        self.spin.set_seconds(value)

    @property
    def is_spinning(self):
        """It looks for an answer, and does not sleep."""
        return self.spin.until != 0


cpdef LoopState loop_state(object loop):
    """The state of `loop`, made when it is first asked for; it lives and dies with the loop."""
    try:
        return <LoopState> loop._p2pcore_state
    except AttributeError:
        state = LoopState(loop)
        loop._p2pcore_state = state
        return state
