"""Memory of the data path: fixed blocks with a pool of free ones, and a queue of received bytes.

Comes in: pointers and lengths. Goes out: pointers that stay valid while their Block lives, bytes
objects. Never grows by itself beyond what it is given: whoever pushes holds the bound.
"""

from collections import deque

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

# A piece of this length or more becomes a bytes object of its own, so that reading it needs no second copy.
cdef Py_ssize_t OWN_CHUNK_BYTES = 4096
# Smaller pieces are gathered up to this size: however small a peer makes its frames, they share one object.
cdef Py_ssize_t TAIL_BYTES = 16384


@cython.final
cdef class Block:
    """`size` bytes of memory; a writable buffer from Python."""

    def __cinit__(self, Py_ssize_t size):
        if size <= 0:
            raise ValueError(f"a block needs a positive size, not {size}")
        self.data = <uint8_t *> malloc(size)
        if self.data == NULL:
            raise MemoryError(f"no memory for a block of {size} bytes")
        self.size = size

    def __dealloc__(self):
        free(self.data)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 0, flags)


@cython.final
cdef class BlockPool:
    """Gives blocks of one size and keeps up to `most` free ones."""

    def __cinit__(self, Py_ssize_t block_size, Py_ssize_t most):
        self.block_size = block_size
        self.most = most
        self.free = []

    @property
    def num_free(self):
        return len(self.free)

    cdef Block take(self):
        if self.free:
            return <Block> self.free.pop()
        return Block(self.block_size)

    cdef int give(self, Block block) except -1:
        if len(self.free) < self.most:
            self.free.append(block)
        return 0


@cython.final
@cython.freelist(64)
cdef class ByteQueue:
    """Received bytes in order: long pieces as objects of their own, short ones gathered.

    An empty queue owns no memory besides itself.
    """

    def __dealloc__(self):
        free(self.tail)

    def __len__(self):
        return self.size

    cdef int push(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Copies `n` bytes in: the one copy of the receive path."""
        if n >= OWN_CHUNK_BYTES:
            self._seal_tail()
            if self.chunks is None:
                self.chunks = deque()
            self.chunks.append(PyBytes_FromStringAndSize(<const char *> data, n))
        elif n > 0:
            if self.tail_len + n > self.tail_cap:
                self._grow_tail(n)
            memcpy(self.tail + self.tail_len, data, n)
            self.tail_len += n
        self.size += n
        return 0

    cdef bytes take(self, Py_ssize_t most):
        """Up to `most` bytes of the oldest piece; b"" only if the queue is empty."""
        cdef Py_ssize_t n
        cdef bytes out
        self._next_head()
        if self.head is not None:
            n = PyBytes_GET_SIZE(self.head) - self.head_at
            if n <= most and self.head_at == 0:
                out = self.head
                self.head = None
                self.size -= n
                return out
        else:
            n = self.tail_len - self.tail_at
        return self.take_exactly(n if n < most else most)

    cdef bytes take_exactly(self, Py_ssize_t n):
        """The oldest `n` bytes. The caller has checked that there are as many."""
        cdef bytes out = PyBytes_FromStringAndSize(NULL, n)
        self.take_into(<uint8_t *> PyBytes_AS_STRING(out), n)
        return out

    cdef Py_ssize_t peek(self, uint8_t *out, Py_ssize_t n) except -1:
        """Copies up to `n` of the oldest bytes to `out`, and leaves them here; returns how many."""
        cdef Py_ssize_t k, done = 0
        if self.head is not None:
            done = min(n, PyBytes_GET_SIZE(self.head) - self.head_at)
            memcpy(out, <uint8_t *> PyBytes_AS_STRING(self.head) + self.head_at, done)
        if done < n and self.chunks:
            for chunk in self.chunks:
                k = min(n - done, PyBytes_GET_SIZE(chunk))
                memcpy(out + done, PyBytes_AS_STRING(chunk), k)
                done += k
                if done == n:
                    break
        k = min(n - done, self.tail_len - self.tail_at)
        memcpy(out + done, self.tail + self.tail_at, k)
        return done + k

    cdef const uint8_t *front(self, Py_ssize_t *n) except? NULL:
        """The oldest piece, `n` bytes that stay in the queue; valid until anything else is done with it."""
        self._next_head()
        if self.head is not None:
            n[0] = PyBytes_GET_SIZE(self.head) - self.head_at
            return <const uint8_t *> PyBytes_AS_STRING(self.head) + self.head_at
        n[0] = self.tail_len - self.tail_at
        return self.tail + self.tail_at if n[0] else NULL

    cdef Py_ssize_t take_into(self, uint8_t *out, Py_ssize_t n) except -1:
        """Copies up to `n` of the oldest bytes to `out`; returns how many."""
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t k
        while done < n:
            self._next_head()
            if self.head is not None:
                k = min(n - done, PyBytes_GET_SIZE(self.head) - self.head_at)
                memcpy(out + done, <uint8_t *> PyBytes_AS_STRING(self.head) + self.head_at, k)
                self._take_head(k)
            elif self.tail_at < self.tail_len:
                k = min(n - done, self.tail_len - self.tail_at)
                memcpy(out + done, self.tail + self.tail_at, k)
                self.tail_at += k
                self._free_tail_if_empty()
            else:
                break
            done += k
        self.size -= done
        return done

    cdef int skip(self, Py_ssize_t n) except -1:
        """Drops `n` bytes of the oldest piece, which front() has shown."""
        self.size -= n
        if self.head is None:
            self.tail_at += n
            return self._free_tail_if_empty()
        return self._take_head(n)

    cdef int append(self, ByteQueue newer) except -1:
        """Puts what is in `newer` behind what is in here, and empties it."""
        while newer.size:
            chunk = newer.take(newer.size)
            self.push(<const uint8_t *> PyBytes_AS_STRING(chunk), PyBytes_GET_SIZE(chunk))
        return 0

    cdef int clear(self) except -1:
        """Drops everything."""
        self.head = None
        self.chunks = None
        self.tail_at = self.tail_len
        self._free_tail_if_empty()
        self.size = 0
        return 0

    cdef int _free_tail_if_empty(self) except -1:
        if self.tail_at == self.tail_len:
            free(self.tail)
            self.tail = NULL
            self.tail_at = self.tail_len = self.tail_cap = 0
        return 0

    cdef int _next_head(self) except -1:
        if self.head is None and self.chunks:
            self.head = <bytes> self.chunks.popleft()
            self.head_at = 0
        return 0

    cdef int _take_head(self, Py_ssize_t n) except -1:
        """`n` bytes of the head have been taken. What is left of a long piece moves once half of it is gone: a peer could
        make very many streams keep one byte of a long piece each, and nobody would count the rest of it."""
        cdef Py_ssize_t left, whole = PyBytes_GET_SIZE(self.head)
        self.head_at += n
        left = whole - self.head_at
        if left == 0:
            self.head = None
        elif left <= whole // 2 and whole > OWN_CHUNK_BYTES:
            self.head = PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.head) + self.head_at, left)
            self.head_at = 0
        return 0

    cdef int _grow_tail(self, Py_ssize_t n) except -1:
        """Makes room for `n` more bytes in the tail: it moves, grows, or is sealed and begins anew."""
        cdef Py_ssize_t left = self.tail_len - self.tail_at
        cdef Py_ssize_t cap = self.tail_cap
        cdef uint8_t *grown
        if left + n > TAIL_BYTES:
            self._seal_tail()
            left = 0
            cap = 0
        if self.tail_at > 0:
            memmove(self.tail, self.tail + self.tail_at, left)
            self.tail_at = 0
            self.tail_len = left
        if left + n > self.tail_cap:
            cap = max(left + n, 2 * cap)
            grown = <uint8_t *> realloc(self.tail, cap)
            if grown == NULL:
                raise MemoryError("no memory for received bytes")
            self.tail = grown
            self.tail_cap = cap
        return 0

    cdef int _seal_tail(self) except -1:
        """Turns the gathered bytes into a chunk, so that newer ones come behind them."""
        if self.tail_at < self.tail_len:
            if self.chunks is None:
                self.chunks = deque()
            self.chunks.append(
                PyBytes_FromStringAndSize(<const char *> self.tail + self.tail_at, self.tail_len - self.tail_at)
            )
        self.tail_at = self.tail_len
        self._free_tail_if_empty()
        return 0
