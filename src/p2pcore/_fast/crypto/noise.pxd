# See noise.pyx.
from libc.stdint cimport uint8_t, uint64_t


cdef class KeyPair:
    cdef readonly bytes secret      # 32 bytes each
    cdef readonly bytes public


cdef class SymmetricState:
    cdef uint8_t _ck[64]            # the chaining key, and behind it the key, as HKDF gives both at once
    cdef uint8_t _h[32]             # the handshake hash so far
    cdef bint has_key
    cdef uint64_t nonce             # of the next message under this key

    cpdef object mix_hash(self, bytes data)
    cpdef object mix_key(self, bytes secret)
    cpdef object encrypt_and_hash(self, bytes plaintext)
    cpdef object decrypt_and_hash(self, bytes sealed)


cdef class Party:
    cdef public SymmetricState state
    cdef readonly bytes remote_static   # authenticated once its message has been read; empty before
    cdef bytes remote_ephemeral
    cdef KeyPair _static
    cdef KeyPair _ephemeral

    cdef int mix_dh(self, KeyPair ours, bytes theirs) except -1


cdef class Initiator(Party):
    pass


cdef class Responder(Party):
    pass
