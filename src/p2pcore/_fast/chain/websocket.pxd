# See websocket.pyx.
from libc.stdint cimport uint8_t, uint64_t

from p2pcore._fast.chain.layer cimport Layer

cdef enum:
    MAX_HEAD_BYTES = 14         # of a frame's header: 2, a 64-bit length, a mask


cdef class WebsocketLayer(Layer):
    cdef bint is_client         # sends masked frames and receives unmasked ones
    cdef uint8_t head[MAX_HEAD_BYTES]   # the header being received
    cdef int have               # bytes of it, 0 inside a payload
    cdef int need               # bytes it will have, known with the second
    cdef uint64_t left          # bytes of the payload still to come
    cdef uint8_t mask[4]        # of the frame being received
    cdef int phase              # which byte of the mask is next
    cdef bint in_message        # a fragmented message has begun and not ended
    cdef Py_ssize_t empty_run   # data frames without payload in a row
    cdef bytes control          # payload of the control frame being received, partly filled; None
    cdef bytes pong             # payload of the newest ping not yet answered; None
    cdef bint close_sent
    cdef bint input_ended       # the peer has closed, or broken the rules: what else it sends is dropped
    cdef bytes close_answer     # payload of the close frame that answers the peer's; None

    cdef int _take_head(self, uint8_t *data, Py_ssize_t n) except -1
    cdef int _check_start(self) except -1
    cdef int _begin(self) except -1
    cdef int _take_control(self, uint8_t *data, Py_ssize_t n) except -1
    cdef int _control_done(self) except -1
    cdef int _closed_by_peer(self, bytes payload) except -1
    cdef int _emit(self, uint8_t opcode, uint8_t *payload, Py_ssize_t n) except -1
    cdef int _send_control(self, uint8_t opcode, bytes payload) except -1
    cdef int _send_close(self, bytes payload) except -1
    cdef int _send_last(self, bytes payload) except -1
    cdef int _violated(self, str what) except -1


cdef void apply_mask(uint8_t *data, Py_ssize_t n, const uint8_t *mask, int phase) noexcept nogil
