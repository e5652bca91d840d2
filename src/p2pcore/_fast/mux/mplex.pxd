# Mplex: messages to streams and back. Spec: libp2p/specs mplex; limits: limits.MPLEX_*.
# Comes in: a byte stream cut anywhere, calls of the streams. Goes out: messages into the record layer's cork,
# one never across two records. Never buffers a message (bodies go to their streams as they come), never
# stands still for a stream nobody reads longer than it was told to, never answers a reset.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from p2pcore._fast.mux.mplex_frame cimport Header
from p2pcore._fast.loop.rate cimport Bucket
from p2pcore._fast.mux.session cimport Session
from p2pcore._fast.mux.stream cimport Stream


cdef class MplexStream(Stream):
    cdef MplexSession session
    cdef bytes label                # the first bytes of the name the peer gave it; None for none
    cdef Py_ssize_t held            # bytes of its queue that session.buffered counts
    cdef Py_ssize_t dropped         # bytes that came after both halves were closed here
    cdef bint is_full               # it is one of session.num_full

    cdef int flag(self, int kind) noexcept


cdef class MplexSession(Session):
    cdef readonly bint is_client
    cdef uint64_t next_id           # of the next stream we open
    cdef bint is_spent              # there is no next one
    cdef uint32_t max_inbound
    cdef uint32_t num_inbound
    cdef uint32_t max_outbound
    cdef uint32_t num_outbound

    # the message being received
    cdef uint8_t partial[18]        # header bytes of which the rest has not come
    cdef int have                   # how many
    cdef Py_ssize_t body_left       # body bytes still to come
    cdef MplexStream current        # whose body it is; None: dropped
    cdef bint is_name               # the body is the name of a new stream

    # what has been received and not read
    cdef Py_ssize_t max_stream      # bytes of one stream at which it is full
    cdef Py_ssize_t max_buffered    # the same of all together
    cdef double stall               # seconds for which reading may be paused
    cdef Py_ssize_t buffered        # bytes held by the streams in the table
    cdef uint32_t num_full          # streams that hold too much
    cdef bint stalled               # reading is paused for them

    # the last message written, while it can still grow
    cdef MplexStream open_stream_   # whose it is; None
    cdef uint64_t open_mark         # cork.sealed when it was written
    cdef uint8_t* open_at           # its length, with the body behind
    cdef Py_ssize_t open_body
    cdef Py_ssize_t open_end        # cork.used behind it

    cdef uint64_t late              # messages that may still be under way to streams we have reset
    cdef Bucket useless
    cdef Bucket refusals
    cdef Bucket resets

    cdef int _parse(self, uint8_t* data, Py_ssize_t n) except -1
    cdef Py_ssize_t _head(self, const uint8_t* data, Py_ssize_t n) except -1
    cdef int _begin(self, Header* h) except -1
    cdef int _for_stream(self, MplexStream stream, Header* h) except -1
    cdef int _opened_by_peer(self, Header* h) except -1
    cdef bint _has_room(self) except -1
    cdef int _refuse(self, uint64_t id) except -1
    cdef int _reset_by_peer(self, MplexStream stream) except -1
    cdef int _nothing_gained(self) except -1
    cdef int _body(self, uint8_t* data, Py_ssize_t n) except -1
    cdef int _account(self, MplexStream stream) except -1
    cdef int _weigh(self) except -1
    cdef MplexStream _fullest(self)
    cdef int _control(self, int flag, uint64_t id) except -1
    cdef bint _can_extend(self) except -1
    cdef Py_ssize_t _put_data(self, MplexStream stream, const uint8_t* data, Py_ssize_t n) except -1
    cdef Py_ssize_t _extend(self, const uint8_t* data, Py_ssize_t n) except -1
    cdef MplexStream _make(self, uint64_t id, bint inbound)
