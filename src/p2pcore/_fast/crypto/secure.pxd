# See secure.pyx.
from libc.stdint cimport uint8_t, uint64_t

from p2pcore._fast.loop.buffer cimport Block
from p2pcore._fast.chain.layer cimport Layer


cdef class Cork(Layer):
    cdef Block gathered         # plaintext not yet sent, from byte `front` on; None while there is none
    cdef Py_ssize_t used        # bytes of it
    cdef Py_ssize_t front       # bytes kept free before the plaintext: a record's header, the headroom of the layer below
    cdef readonly Py_ssize_t most   # plaintext bytes of a full record
    cdef readonly uint64_t sealed   # records sent: the gathered bytes are still open while this stays the same
    cdef bint paused
    cdef bint shut_due          # shut() once the last record has left

    cdef Py_ssize_t space(self) except -1
    cdef uint8_t *room(self, Py_ssize_t n) except NULL
    cdef int seal(self) except -1
    cdef int send_close_notify(self) except -1
    cdef int _give_back(self) except -1


cdef class PlainChannel(Cork):
    pass


cdef class NoiseChannel(Cork):
    cdef uint8_t send_key[32]
    cdef uint8_t receive_key[32]
    cdef object encrypt         # encrypt_into of the sending cipher (2.3 KB); None while idle, see _enlist
    cdef object decrypt
    cdef bint is_listed         # it is in state.ciphered
    cdef bint is_recent         # used since that was last looked through
    cdef uint64_t send_nonce
    cdef uint64_t receive_nonce
    cdef Block spill            # a record of which only a part has come; None
    cdef Py_ssize_t spilled     # bytes of it
    cdef Py_ssize_t empty_run   # empty records in a row

    cdef int _enlist(self) except -1
    cdef int _encrypt_long(self, uint8_t *data, Py_ssize_t n) except -1
    cdef bint _decrypt_long(self, uint8_t *record, Py_ssize_t n) except -1
    cdef int _open(self, uint8_t *record, Py_ssize_t n) except -1
    cdef Py_ssize_t _fill_spill(self, uint8_t *data, Py_ssize_t n) except -1
