# See layer.pyx.
from libc.stdint cimport uint8_t

from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.chain.multistream cimport Answer
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.ledger cimport Ledger
from p2pcore._fast.loop.loop_state cimport LoopState
from p2pcore._fast.loop.waiting cimport Op


cdef class Layer(Flushable):
    cdef Layer below            # towards the socket; None at the bottom and after lost()
    cdef Layer above            # towards the application; None at the top and after lost()
    cdef LoopState state        # set when the layer is linked to a chain

    cdef int feed(self, uint8_t *data, Py_ssize_t n) except -1
    cdef int feed_eof(self) except -1
    cdef int lost(self, object error) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef int send(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int send_in_place(self, uint8_t *data, Py_ssize_t n) except -1
    cdef int throttle(self, bint on) except -1
    cdef int shut(self) except -1
    cdef int drop(self, object error) except -1
    cdef bint is_paused(self) except -1
    cdef int seat(self, Layer below) except -1
    cdef bint is_top(self) noexcept
    cdef int has_begun(self) except -1
    cdef bint is_unfinished(self) noexcept
    cdef int headroom(self) noexcept
    cdef int set_ledger(self, Ledger ledger) except -1
    cdef int tally(self, Py_ssize_t held, Py_ssize_t waits) except -1


cdef class Mailbox(Layer):
    cdef ByteQueue held         # bytes nobody has read yet
    cdef Py_ssize_t counted     # bytes of it that the bottom of the chain counts
    cdef bytes put_off          # written, and not sent before the next write or wait; None
    cdef Op reader              # the one waiting read; None
    cdef Op patient             # the one call that waits for its turn; None
    cdef bint input_ended       # the peer sends no more
    cdef bint closing           # close() was called: nothing is taken any more
    cdef bint throttled         # reading from the socket is paused: too much is held
    cdef object error           # why the chain was lost, or is of no use; None while it lives
    cdef Answer answer          # to a lazy proposal, comes before anything that is held; None when agreed

    cdef object _some(self, Py_ssize_t least, Py_ssize_t most, bint keeps)
    cdef int _send_put_off(self) except -1
    cdef Layer _linked_for(self, Layer layer)
    cdef int _give(self, Layer layer) except -1
    cdef int _give_from(self, ByteQueue held, Layer layer) except -1
    cdef bytes _taken(self, Py_ssize_t n)
    cdef Py_ssize_t _answered(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int _wake(self) except -1
    cdef int _count(self, Py_ssize_t size) except -1
