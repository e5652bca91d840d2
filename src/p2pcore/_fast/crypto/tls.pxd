# See tls.pyx.
from libc.stdint cimport uint8_t, uint64_t

from p2pcore._fast.loop.buffer cimport Block
from p2pcore._fast.loop.rate cimport Bucket
from p2pcore._fast.crypto.secure cimport Cork


cdef class TlsChannel(Cork):
    cdef object owner           # the cffi object whose end frees `ssl`
    cdef object context         # of pyOpenSSL: OpenSSL may call back into it
    cdef void *ssl              # NULL once the chain is lost
    cdef void *input            # the memory BIO `ssl` reads from; belongs to it, as does
    cdef void *output           # the one it writes to
    cdef bint is_output_large   # that has held a long record, and keeps the memory
    cdef bint close_notify_put  # OpenSSL has put out our close_notify
    cdef bint has_read          # data has come: the peer has accepted our handshake
    cdef bint has_part          # a part of a record has come: OpenSSL holds it
    cdef bint input_ended       # the peer's close_notify, or the end of input, has come
    cdef int header_len         # bytes that have come of the header of the record under way
    cdef Py_ssize_t to_come     # bytes behind its header that are still missing
    cdef uint8_t header[5]
    cdef uint64_t received      # whole records
    cdef Bucket control         # records without data

    cdef Py_ssize_t _collect(self, uint8_t *data, Py_ssize_t have, Py_ssize_t room) except -1
    cdef int _put_close_notify(self) except -1
    cdef int _send_output(self) except -1
    cdef int _renew_output(self) except -1
    cdef int _follow(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int _supply(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int _read_all(self) except -1
    cdef int _feed_up(self, Block block, Py_ssize_t n) except -1
    cdef bint _has_more(self) except -1
    cdef int _stop_reading(self, int status) except -1
