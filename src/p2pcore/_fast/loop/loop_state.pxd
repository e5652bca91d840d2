# What all connections of one event loop share: the receive buffer, free record buffers, the list of
# layers to flush when this iteration ends, and one coarse timer for stalls. Owned by the loop, found by
# loop_state(loop). Never used from another thread than the loop's.
from p2pcore._fast.loop.buffer cimport Block, BlockPool


cdef class Flushable:
    cdef bint flush_due         # already on the list
    cdef int flush(self) except -1
    cdef int overdue(self) except -1


cdef class LoopState:
    cdef readonly object loop
    cdef Block receive          # lent to whichever connection reads
    cdef object lend            # called for it: a bound method, kept only here
    cdef BlockPool records      # blocks of one full noise record with its length prefix, and room in front of it
    cdef list due               # Flushables to flush at the end of this iteration
    cdef bint flush_scheduled
    cdef Py_ssize_t num_woken   # Ops whose future is done and whose task has not run yet
    cdef Py_ssize_t num_resumed # those that have run since the last flush
    cdef readonly object ciphered   # OrderedDict: record layers that hold ciphers, the longest enlisted first
    cdef dict watched           # Flushable -> monotonic second at which it is overdue
    cdef object sweep_handle
    cdef double _spin_s         # how long it looks for an answer without sleeping; 0: never
    cdef double said_at         # monotonic second at which a short message left that nothing has followed yet; 0
    cdef double spin_until      # looks for its answer without sleeping until then; 0 while it may sleep
    cdef int num_quick          # short answers in a row that came soon
    cdef bint spin_scheduled
    cdef object spin_again      # a bound method, kept only here

    cdef int said(self, Py_ssize_t n) except -1
    cdef int heard(self, Py_ssize_t n) noexcept
    cdef int flush_soon(self, Flushable layer) except -1
    cdef int flush_now(self) except -1
    cdef int _flush_round(self) except -1
    cdef int watch(self, Flushable layer, double seconds) except -1
    cdef int unwatch(self, Flushable layer) except -1

cpdef LoopState loop_state(object loop)
cdef double monotonic() noexcept
