# See stream.pyx.
from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.chain.multistream cimport Answer
from p2pcore._fast.loop.loop_state cimport LoopState
from p2pcore._fast.loop.metrics cimport Traffic
from p2pcore._fast.loop.waiting cimport Op


cdef class Stream
cdef class WriteOp(Op)

cdef enum:
    SPOKEN = 0
    SILENT = 1
    HEARD = 2


cdef class _LazyAnswer(Answer):
    cdef Stream stream              # None when settled
    cdef bint is_late               # it has not come soon: the end of our data waits for it no longer

    cdef int start(self) except -1
    cdef int forget(self) except -1


cdef class StreamRead(Op):
    cdef Stream stream
    cdef Py_ssize_t n               # bytes asked for
    cdef bint iterates              # an end in order is the end of an `async for`

    cdef Py_ssize_t deliver(self, const uint8_t *data, Py_ssize_t n) except -1


cdef class Stream:
    cdef object __weakref__
    cdef LoopState state
    cdef readonly uint64_t id
    cdef public object protocol     # agreed protocol id; None before
    cdef readonly bint is_inbound
    cdef uint8_t fin_received       # the peer sends no more
    cdef uint8_t fin_sent           # we have said that we send no more
    cdef uint8_t fin_due            # ... or will, when the waiting writes and the negotiation are done
    cdef uint8_t read_closed        # nobody here reads any more
    cdef uint8_t holding            # the sink wants nothing for now: what comes waits in the queue
    cdef uint8_t eof_fed            # the sink has heard of the peer's end
    cdef uint8_t silence            # SILENT: it was set aside; HEARD: and its handler gets it again; SPOKEN otherwise
    cdef uint8_t keeps_input        # `error` takes nothing that has come: a lost connection, or a reset behind the peer's FIN
    cdef ByteQueue queue            # received and not yet read; None before the first byte
    cdef Py_ssize_t aside           # bytes that a long read has taken out of it, and holds
    cdef Py_ssize_t counted         # bytes of both that the session's ledger counts
    cdef StreamRead reader          # the one waiting read, until its task runs again
    cdef list writers               # waiting WriteOps, oldest first; None before the first
    cdef object error               # why reads and writes fail; None while they do not
    cdef public object handler_task # the task that serves it, to be cancelled if it fails; None: nobody asked for that
    cdef list closers               # waiting _ClosedOps; None before the first
    cdef double read_deadline       # monotonic second, 0 for none
    cdef double write_deadline
    cdef _LazyAnswer answer         # to a lazy proposal, comes before anything else; None when settled
    cdef Layer sink                 # takes what comes as it comes, in place of reads; None: reads do
    cdef Traffic traffic            # counts its bytes while it is in the session's table; None: nobody does

    # for the session
    cdef int receive(self, uint8_t *data, Py_ssize_t n) except -1
    cdef int receive_fin(self) except -1
    cdef int fail(self, object error, bint discard) except -1
    cdef int pump(self, Py_ssize_t most) except -1
    cdef int last_chance(self) except -1
    cdef bint has_bytes(self) noexcept
    cdef bint is_read(self) noexcept
    cdef bint has_ended(self) noexcept
    cdef int left(self) noexcept

    # for a sink
    cdef int attach(self, Layer sink) except -1
    cdef bint _has_writer(self) except -1
    cdef int detach(self) except -1
    cdef int hold(self, bint on) except -1
    cdef int pour(self) except -1
    cdef bint put(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef Py_ssize_t num_waiting(self) except -1

    # for the muxer's own stream to override
    cdef Py_ssize_t push(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int send_fin(self) except -1
    cdef int send_reset(self, uint32_t code) except -1
    cdef int credit(self, Py_ssize_t n) except -1
    cdef int want(self, Py_ssize_t n) except -1
    cdef int drop_received(self, Py_ssize_t n) except -1
    cdef int write_waits(self) except -1
    cdef int writes_begin(self) except -1
    cdef int writes_done(self) except -1
    cdef int count_waits(self, Py_ssize_t by) except -1
    cdef bint may_wait(self) except -1
    cdef int queue_changed(self) except -1
    cdef bint is_of(self, object session) noexcept
    cdef bint may_push(self) noexcept
    cdef int closed_here(self) except -1
    cdef int heard(self) except -1
    cdef Op session_turn(self, Py_ssize_t work)
    cdef uint64_t key(self) noexcept

    cdef bytes _take(self, Py_ssize_t most)
    cdef int _claim(self, StreamRead op) except -1
    cdef int _check_read(self) except -1
    cdef int _check_write(self) except -1
    cdef int _maybe_feed_eof(self) except -1
    cdef int _maybe_lose_sink(self) except -1
    cdef Op _write(self, object data)
    cdef bint take_write(self, object data) except -1
    cdef Op _write_msg(self, object data, bint is_varint)
    cdef WriteOp _write_op(self, object data)
    cdef Op _read_msg(self, Py_ssize_t most, object prefix, bint iterates)
    cdef int _maybe_wake_closers(self) except -1
    cdef int _maybe_cancel_handler(self) except -1
    cdef bint _is_awaited(self, object future) except -1
    cdef str _state_text(self)
    cdef int _store(self, uint8_t *data, Py_ssize_t n) except -1
    cdef int _put_back(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef Py_ssize_t _answered(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int _settle(self) except -1
    cdef int _give_up(self, object error) except -1
    cdef int _wake_reader(self) except -1
    cdef int _maybe_send_fin(self) except -1
    cdef int _maybe_closed_here(self) except -1
    cdef bint is_dropped(self, Py_ssize_t refs) except -1


cdef class WriteOp(Op):
    cdef Stream stream
    cdef Py_buffer view
    cdef bint holds_view
    cdef bint enlisted              # in stream.writers
    cdef Py_ssize_t at              # bytes of it handed on
    cdef Py_ssize_t size            # bytes of it
    cdef bint is_msg                # a message, or the rest of one: a part of it ends the stream
    cdef bint has_begun             # some of its length has left already

    cdef bint begin(self) except -1
    cdef int release(self) except -1
    cdef int _check_deadline(self) except -1
