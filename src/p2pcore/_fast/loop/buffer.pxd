# See buffer.pyx.
from libc.stdint cimport uint8_t


cdef class Block:
    cdef uint8_t *data          # `size` bytes from malloc
    cdef readonly Py_ssize_t size


cdef class BlockPool:
    cdef Py_ssize_t block_size  # size of every block it gives
    cdef Py_ssize_t most        # free blocks kept
    cdef list free

    cdef Block take(self)
    cdef int give(self, Block block) except -1


cdef class ByteQueue:
    cdef readonly Py_ssize_t size   # bytes in it, all parts together
    cdef object chunks              # deque of bytes, oldest first; None until one is needed
    cdef bytes head                 # the oldest chunk, partly taken
    cdef Py_ssize_t head_at         # bytes of head already taken
    cdef uint8_t *tail              # small pieces gathered, newest bytes of all
    cdef Py_ssize_t tail_at         # bytes of tail already taken
    cdef Py_ssize_t tail_len        # bytes in tail, taken ones included
    cdef Py_ssize_t tail_cap

    cdef int push(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef bytes take(self, Py_ssize_t most)
    cdef Py_ssize_t take_into(self, uint8_t *out, Py_ssize_t n) except -1
    cdef bytes take_exactly(self, Py_ssize_t n)
    cdef Py_ssize_t peek(self, uint8_t *out, Py_ssize_t n) except -1
    cdef const uint8_t *front(self, Py_ssize_t *n) except? NULL
    cdef int skip(self, Py_ssize_t n) except -1
    cdef int append(self, ByteQueue newer) except -1
    cdef int clear(self) except -1
    cdef int _take_head(self, Py_ssize_t n) except -1
    cdef int _free_tail_if_empty(self) except -1
    cdef int _grow_tail(self, Py_ssize_t n) except -1
    cdef int _seal_tail(self) except -1
    cdef int _next_head(self) except -1
