# See mplex.pyx.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from p2pcore._fast.mux.mplex_frame cimport Header
from p2pcore._fast.mux.session cimport Session
from p2pcore._fast.mux.stream cimport Stream


cdef class MplexStream(Stream):
    cdef MplexSession session
    cdef bytes label                # the first bytes of the name the peer gave it; None for none
    cdef Py_ssize_t held            # bytes of its queue that session.buffered counts
    cdef bint is_full               # it is one of session.num_full

    cdef int flag(self, int kind) noexcept


cdef class MplexSession(Session):
    cdef readonly bint is_client
    cdef uint64_t next_id           # of the next stream we open
    cdef bint is_spent              # there is no next one
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

    cdef Py_ssize_t _head(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int _begin(self, Header *h) except -1
    cdef int _for_stream(self, MplexStream stream, Header *h) except -1
    cdef int _opened_by_peer(self, Header *h) except -1
    cdef int _refuse(self, uint64_t id, str limit) except -1
    cdef int _reset_by_peer(self, MplexStream stream) except -1
    cdef int _nothing_gained(self) except -1
    cdef int _body(self, uint8_t *data, Py_ssize_t n) except -1
    cdef int _account(self, MplexStream stream) except -1
    cdef int _weigh(self) except -1
    cdef MplexStream _fullest(self)
    cdef int _control(self, int flag, uint64_t id) except -1
    cdef Py_ssize_t _put_data(self, MplexStream stream, const uint8_t *data, Py_ssize_t n) except -1
    cdef Py_ssize_t _extend(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef MplexStream _make(self, uint64_t id, bint inbound)
