# See session.pyx.
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from p2pcore._fast.chain.bottom cimport Bottom
from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.crypto.secure cimport Cork
from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.ledger cimport Ledger, Share, count_unread
from p2pcore._fast.loop.rate cimport Bucket
from p2pcore._fast.mux.open_frame cimport OpenFrame
from p2pcore._fast.loop.waiting cimport Op
from p2pcore._fast.mux.stream cimport Stream


cdef class Session


cdef class Allowance:
    cdef readonly double refused_per_s
    cdef readonly double refused_burst
    cdef readonly double resets_per_s
    cdef readonly double reset_burst


cdef class _Closing(Flushable):
    cdef Session session
    cdef uint32_t code


cdef class Excess:
    cdef _Closing closing           # close() was called, and writes wait; None before
    cdef list closers               # waiting _CloseOps
    cdef list acceptors             # waiting _AcceptOps
    cdef list openers               # waiting _OpenOps
    cdef dict waiting               # streams with writes that wait for the socket, in turn; None: none
    cdef dict lingers               # stream -> Linger, where the peer goes on sending; None: none
    cdef Bucket refusals            # streams the peer opened and we refused
    cdef Bucket resets              # streams the peer opened and reset
    cdef Bucket useless             # frames that bring nothing: for unknown streams, or empty
    cdef uint64_t num_refused
    cdef bint sweep_is_due          # the next look for dropped streams because a place was wanted is scheduled
    cdef dict places                # key of a stream -> where it was opened; None but in debug mode
    cdef Behind behind              # received and not handled yet; None: nothing
    cdef list patient               # waiting _TurnOps; None: none


cdef class Behind:
    cdef ByteQueue held             # received bytes, in order
    cdef Py_ssize_t counted         # bytes of it that the ledger counts
    cdef bint eof                   # ... and behind them the end of input
    cdef object lost                # ... or the end of the connection, with this reason; None


cdef class Linger(Flushable):
    cdef Stream stream
    cdef Py_ssize_t dropped         # bytes


cdef class Session(Layer):
    cdef object __weakref__
    cdef public object owner        # what its streams give as `conn`
    cdef Cork cork                  # the layer below
    cdef Bottom bottom              # where the chain begins, also after lost(); None before seat(), and in some tests
    cdef dict streams               # id -> Stream, those not ended both ways; None: there are none
    cdef PyObject *latest           # the one of them that got the last frame, borrowed from it; NULL: none
    cdef object handler             # gets inbound streams; None: they wait for accept_stream
    cdef list arrived               # inbound streams not yet delivered, oldest first
    cdef object callbacks           # the close callback, a list of several, None without any
    cdef object error               # why the session ended; None while it lives
    cdef dict lingering             # streams closed here that the peer has not ended, oldest first; None: none
    cdef uint64_t late              # frames that may still be under way to streams that have ended, whatever the rate
    cdef Allowance allowance        # how much more than it may a peer may try
    cdef Excess excess              # what only unusual sessions need; None: nothing

    cdef Ledger ledger              # counts what it uses, until it has ended; None before account()
    cdef readonly Share share       # the part of it that is the peer's
    cdef int64_t held               # bytes received and unread that the ledger counts
    cdef int64_t waits              # bytes of writes that wait, the same

    cdef readonly bint paused       # the socket is full
    # True or False, in a byte: a bint takes four, and every connection has these.
    cdef uint8_t is_lined_up        # the rota calls go_on()
    cdef uint8_t is_told            # the callbacks have been called
    cdef uint8_t is_lost            # lost() has been called: the socket is gone
    cdef uint8_t is_swept           # the loop looks now and then for streams that were dropped
    cdef uint8_t is_discarded       # the session has ended, and what its streams have received is dropped
    cdef uint8_t is_used            # a frame of a stream has come; whoever calls parse() clears it
    cdef uint32_t num_writing       # streams with a write that waits, for whatever
    cdef uint32_t max_inbound
    cdef uint32_t num_inbound       # inbound streams in the table, without those that linger
    cdef readonly uint32_t num_streams_in   # all that the peer has opened and that were not refused
    cdef readonly uint32_t num_streams_out  # all that were opened here
    cdef readonly double active_at  # monotonic second of the last such frame, or end of a stream; 0 before

    cdef Stream growing             # whose frame `frame` is; None: no frame can grow
    cdef OpenFrame frame            # the last data frame written

    # for the muxer
    cdef int arrive(self, Stream stream) except -1
    cdef str limit_reached(self, Py_ssize_t max_unaccepted)
    cdef int enter(self, Stream stream) except -1
    cdef int linger(self, Stream stream) except -1
    cdef bint drops(self, Stream stream, Py_ssize_t n) except -1
    cdef int refusing(self, str limit) except -1
    cdef int count_reset(self, Stream stream) except -1
    cdef int count_useless(self, double per_s, str what) except -1
    cdef int sweep_at_limit(self) except -1
    cdef double retry_at(self) except -2
    cdef int violated(self, object error) except -1
    cdef int wake_opener(self) except -1
    cdef int writes_done(self) except -1
    cdef int count_waits(self, Py_ssize_t by) except -1
    cdef bint has_too_much(self, int64_t more) noexcept
    cdef bint must_shed(self, int64_t more) except -1
    cdef int shed(self, Stream stream) except -1
    cdef list living(self)
    cdef Stream find(self, uint64_t key)
    cdef bint forget(self, Stream stream) except -1
    cdef int waiting_add(self, Stream stream) except -1
    cdef int settle_reading(self) except -1
    cdef Op turn(self, Py_ssize_t work)

    # for the muxer to override
    cdef int fail(self, object error) except -1
    cdef Py_ssize_t parse(self, uint8_t *data, Py_ssize_t n, Py_ssize_t least) except -1
    cdef bint is_stalled(self) noexcept
    cdef Stream new_stream(self)
    cdef int accepted(self, Stream stream) except -1
    cdef int send_go_away(self, uint32_t code) except -1
    cdef int unpaused(self) except -1
    cdef object eof_reason(self)
    cdef int remove(self, Stream stream) except -1

    cdef Excess _excess(self)
    cdef str _limit_now(self)
    cdef int _give_back(self) except -1
    cdef int _fail_some(self, Py_ssize_t least) except -1
    cdef int _fail_one(self, Stream stream) except -1
    cdef int _count_ended(self, Stream stream) except -1
    cdef int _inbound_left(self) except -1
    cdef int _count_refused(self, str limit) except -1
    cdef int _excess_ended(self) except -1
    cdef int _forget_excess(self, Stream stream, object key) except -1
    cdef int _drop(self, Stream stream) except -1
    cdef int _seated(self) except -1
    cdef int _close_now(self, uint32_t code) except -1
    cdef int _line_up(self) except -1
    cdef Behind _is_behind(self)
    cdef Behind _end_waits(self)
    cdef bint _must_wait(self) noexcept
    cdef int _keep(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int _start_arrived(self, Py_ssize_t least) except -1
    cdef int _catch_up(self, Py_ssize_t least) except -1
    cdef int _count_behind(self, Behind behind, Py_ssize_t size) except -1
    cdef int _caught_up(self, Behind behind) except -1
    cdef int _call_patient(self, Py_ssize_t least) except -1
    cdef int _tell_ended(self) except -1
    cdef bint _is_due(self, Stream stream) except -1


cdef inline int memory_state(Session session) noexcept:
    """The state of the memory, CALM without a ledger."""
    return 0 if session.ledger is None else session.ledger.state


cdef inline int count_held(Session session, Stream stream) except -1:
    """The bytes that `stream` holds unread may have changed."""
    cdef Py_ssize_t size
    if session.ledger is not None:
        size = stream.aside + (0 if stream.queue is None else stream.queue.size)
        if size != stream.counted:
            session.held += size - stream.counted
            count_unread(session.ledger, session.share, size - stream.counted)
            stream.counted = size
    return 0
