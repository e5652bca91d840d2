# See loop_state.pyx.
from p2pcore._fast.loop.buffer cimport Block, BlockPool
from p2pcore._fast.loop.flush cimport Flusher
from p2pcore._fast.loop.rota cimport Rota
from p2pcore._fast.loop.spin cimport Spin
from p2pcore._fast.loop.sweeper cimport Sweeper
from p2pcore._fast.loop.timers cimport Timers
from p2pcore._fast.loop.unfinished cimport Unfinished


cdef class LoopState:
    cdef readonly object loop
    cdef readonly bint is_debug     # asyncio's debug mode, or python -X dev
    cdef dict of_loop           # {"loop": loop}, for what belongs to it
    cdef Block receive          # lent to whichever connection reads
    cdef object lend            # called for it: a bound method, kept only here
    cdef BlockPool records      # blocks of one full noise record with its length prefix, and room in front of it
    cdef readonly object ciphered   # OrderedDict: record layers that hold ciphers, the longest enlisted first
    cdef Flusher flusher
    cdef Timers timers
    cdef Sweeper sweeper
    cdef Rota rota
    cdef Unfinished unfinished
    cdef Spin spin

cpdef LoopState loop_state(object loop)
