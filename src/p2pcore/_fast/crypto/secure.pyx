"""The record layer: gathers what one loop iteration writes into full records, and opens received ones.

Comes in: plaintext in pieces from above, records cut anywhere from below. Goes out: one send per
record, whole plaintexts. Never keeps a buffer while idle, never feeds an unauthenticated byte.
Noise framing and nonces: libp2p noise spec, "Wire format"; Noise Protocol Framework, section 5.1.
"""

cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from p2pcore import errors, limits

from p2pcore._fast.loop.buffer cimport Block
from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.crypto.sodium cimport put_nonce, sodium_open, sodium_seal

cdef Py_ssize_t MAX_PLAINTEXT = limits.MAX_NOISE_PLAINTEXT_BYTES
cdef Py_ssize_t MAX_EMPTY_RECORDS = limits.MAX_EMPTY_RECORDS
cdef Py_ssize_t MAX_CIPHERED = limits.MAX_CIPHERED_CHANNELS
cdef int MAX_CHANCES = 8
cdef Py_ssize_t TAG = 16
cdef Py_ssize_t KEY_BYTES = 32
# Up to this size libsodium, called as C, is quicker than OpenSSL through Python (measured: equal at 400 bytes).
cdef Py_ssize_t SHORT_BYTES = 384
# Up to this size a channel does not make a cipher object, which costs a microsecond and 2.3 KB.
cdef Py_ssize_t RARE_BYTES = 2048
cdef uint64_t LAST_NONCE = 0xFFFFFFFFFFFFFFFF     # reserved: never used for a record


cdef class Cork(Layer):
    """Gathers writes until the iteration ends or a record is full. A subclass makes and opens the records."""

    def __cinit__(self, *_):
        self.most = MAX_PLAINTEXT

    cdef Py_ssize_t space(self) except -1:
        """Bytes that still fit the record being gathered."""
        return self.most - self.used

    cdef uint8_t *room(self, Py_ssize_t n) except NULL:
        """Room for `n` bytes (at most `most`) behind what is gathered. The caller fills it at once."""
        cdef uint8_t *at
        if self.below is None:
            raise errors.ConnectionClosed("the connection is closed")
        if n > self.most - self.used:
            self.seal()
        if self.gathered is None:
            self.gathered = self.state.records.take()
        at = self.gathered.data + self.front + self.used
        self.used += n
        if not self.flush_due and not self.paused:
            self.state.flusher.flush_soon(self)
        return at

    cdef int send(self, const uint8_t *data, Py_ssize_t n) except -1:
        cdef Py_ssize_t k
        while n > 0:
            if self.used == self.most:
                self.seal()
            k = min(n, self.most - self.used)
            memcpy(self.room(k), data, k)
            data += k
            n -= k
        return 0

    cdef int seal(self) except -1:
        """Makes a record of what is gathered and sends it; `used` is 0 afterwards."""
        raise NotImplementedError

    cdef int send_close_notify(self) except -1:
        """Tells the peer that nothing follows, if the records have a way to say so."""
        return 0

    cdef int flush(self) except -1:
        """Sends what is gathered. While the socket is full, it goes on gathering."""
        if self.used and not self.paused and self.below is not None:
            try:
                self.seal()
            except Exception as error:
                self.drop(error)
                return 0
        if self.used == 0:
            self._give_back()
        if self.shut_due and self.used == 0:
            self.shut_due = False
            if self.below is not None:
                self.send_close_notify()
            Layer.shut(self)
        return 0

    cdef int pause(self) except -1:
        self.paused = True
        return self.above.pause()

    cdef int resume(self) except -1:
        self.paused = False
        if self.gathered is not None:
            self.state.flusher.flush_soon(self)
        return self.above.resume()

    cdef bint is_paused(self) except -1:
        return self.paused or self.below is None

    cdef int shut(self) except -1:
        if self.used and self.paused:
            # The socket is full. Its queue is bounded and so is this record, so it can be handed on now.
            self.seal()
        self.shut_due = True
        return self.flush()

    cdef int seat(self, Layer below) except -1:
        # Bytes of the handshake may still wait for a peer that does not read.
        self.paused = below.is_paused()
        return Layer.seat(self, below)

    cdef int lost(self, object error) except -1:
        self.used = 0
        self._give_back()
        return Layer.lost(self, error)

    cdef int _give_back(self) except -1:
        if self.gathered is not None:
            self.state.records.give(self.gathered)
            self.gathered = None
        return 0


@cython.final
cdef class PlainChannel(Cork):
    """No records and no secrecy: the gathered bytes as they are. For muxers without a secure channel."""

    cdef int seat(self, Layer below) except -1:
        self.front = below.headroom()
        return Cork.seat(self, below)

    cdef int seal(self) except -1:
        cdef Py_ssize_t n = self.used
        self.used = 0
        self.sealed += 1
        return self.below.send_in_place(self.gathered.data + self.front, n)


@cython.final
cdef class NoiseChannel(Cork):
    """Noise transport messages: 2-byte length, ChaCha20-Poly1305, a nonce that counts from 0.

    Args:
        send_key, receive_key: 32 bytes each, as the handshake's Split() gave them.
    """

    def __cinit__(self, bytes send_key not None, bytes receive_key not None):
        if len(send_key) != KEY_BYTES or len(receive_key) != KEY_BYTES:
            raise ValueError(f"noise keys have 32 bytes, not {len(send_key)} and {len(receive_key)}")
        # Arrays, because two bytes objects would take 96 bytes more.
        memcpy(self.send_key, PyBytes_AS_STRING(send_key), KEY_BYTES)
        memcpy(self.receive_key, PyBytes_AS_STRING(receive_key), KEY_BYTES)

    cdef int seat(self, Layer below) except -1:
        self.front = 2 + below.headroom()
        return Cork.seat(self, below)

    cdef int seal(self) except -1:
        cdef Py_ssize_t n = self.used
        cdef uint8_t *data = self.gathered.data + self.front - 2
        if self.send_nonce == LAST_NONCE:
            raise errors.LocalProtocolError("all nonces of this noise connection have been used")
        data[0] = <uint8_t> ((n + TAG) >> 8)
        data[1] = <uint8_t> (n + TAG)
        if n <= SHORT_BYTES or (self.encrypt is None and n <= RARE_BYTES):
            sodium_seal(data + 2, n, self.send_nonce, self.send_key)
        else:
            self._encrypt_long(data + 2, n)
        self.send_nonce += 1
        self.sealed += 1
        self.used = 0
        return self.below.send_in_place(data, n + TAG + 2)

    cdef int _encrypt_long(self, uint8_t *data, Py_ssize_t n) except -1:
        self.is_recent = True
        if self.encrypt is None:
            self.encrypt = _cipher(self.send_key).encrypt_into
            self._enlist()
        self.encrypt(
            _nonce(self.send_nonce),
            PyMemoryView_FromMemory(<char *> data, n, PyBUF_READ),
            None,
            PyMemoryView_FromMemory(<char *> data, n + TAG, PyBUF_WRITE),
        )
        return 0

    cdef bint _decrypt_long(self, uint8_t *record, Py_ssize_t n) except -1:
        """Whether the record authenticates; then it is decrypted in place."""
        self.is_recent = True
        if self.decrypt is None:
            self.decrypt = _cipher(self.receive_key).decrypt_into
            self._enlist()
        try:
            self.decrypt(
                _nonce(self.receive_nonce),
                PyMemoryView_FromMemory(<char *> record, n, PyBUF_READ),
                None,
                PyMemoryView_FromMemory(<char *> record, n - TAG, PyBUF_WRITE),
            )
        except InvalidTag:
            return False
        return True

    cdef int feed(self, uint8_t *data, Py_ssize_t n) except -1:
        cdef Py_ssize_t size, done
        if self.spill is not None:
            done = self._fill_spill(data, n)
            data += done
            n -= done
        while n >= 2 and self.above is not None:
            size = (data[0] << 8) | data[1]
            if n < size + 2:
                break
            self._open(data + 2, size)
            data += size + 2
            n -= size + 2
        if n > 0 and self.above is not None:
            self.spill = self.state.records.take()
            memcpy(self.spill.data, data, n)
            self.spilled = n
            if not self.is_timed:
                self.has_begun()
            self.tally(self.spill.size, 0)
        return 0

    cdef uint64_t progress(self) except? 0:
        """A record must become whole: a byte now and then is not enough to keep its buffer."""
        return 0 if self.spill is None else 1 + self.receive_nonce

    cdef Py_ssize_t _fill_spill(self, uint8_t *data, Py_ssize_t n) except -1:
        """Completes the record begun earlier, if `data` has its rest; returns the bytes used."""
        cdef Block spill = self.spill
        cdef Py_ssize_t size, k, used = 0
        while self.spilled < 2 and used < n:
            spill.data[self.spilled] = data[used]
            self.spilled += 1
            used += 1
        if self.spilled < 2:
            return used
        size = (spill.data[0] << 8) | spill.data[1]
        k = min(n - used, size + 2 - self.spilled)
        memcpy(spill.data + self.spilled, data + used, k)
        self.spilled += k
        if self.spilled == size + 2:
            self.spill = None
            self.tally(-spill.size, 0)
            try:
                self._open(spill.data + 2, size)
            finally:
                self.state.records.give(spill)
        return used + k

    cdef int _open(self, uint8_t *record, Py_ssize_t n) except -1:
        """Decrypts one record in place and feeds it up."""
        cdef Py_ssize_t size = n - TAG
        cdef bint opened
        if size < 0:
            raise errors.RemoteProtocolError(f"noise record of {n} bytes is shorter than its tag")
        if self.receive_nonce == LAST_NONCE:
            raise errors.RemoteProtocolError("the peer has used all nonces of this noise connection")
        if n <= SHORT_BYTES or (self.decrypt is None and n <= RARE_BYTES):
            opened = sodium_open(record, n, self.receive_nonce, self.receive_key)
        else:
            opened = self._decrypt_long(record, n)
        if not opened:
            raise errors.RemoteProtocolError("noise record does not authenticate")
        self.receive_nonce += 1
        if size == 0:
            self.empty_run += 1
            if self.empty_run > MAX_EMPTY_RECORDS:
                raise errors.LimitExceeded("empty noise records in a row", self.empty_run, MAX_EMPTY_RECORDS)
            return 0
        self.empty_run = 0
        return self.above.feed(record, size)

    cdef int feed_eof(self) except -1:
        if self.spill is not None:
            raise errors.ConnectionClosed("the connection ended inside a noise record")
        return self.above.feed_eof()

    cdef int lost(self, object error) except -1:
        if self.spill is not None:
            self.state.records.give(self.spill)
            self.spill = None
        if self.is_listed:
            self.is_listed = False
            self.state.ciphered.pop(self, None)
        return Cork.lost(self, error)

    cdef int _enlist(self) except -1:
        """Adds this channel to those that hold ciphers. If they are too many, the oldest idle one loses its own.

        A channel that was used since the last look gets another chance, at most MAX_CHANCES in one call.
        """
        if self.is_listed:
            return 0
        self.is_listed = True
        ring = self.state.ciphered
        ring[self] = None
        cdef NoiseChannel oldest
        cdef int chances = MAX_CHANCES
        while len(ring) > MAX_CIPHERED:
            oldest = <NoiseChannel> ring.popitem(False)[0]
            if oldest is self or (oldest.is_recent and chances > 0):
                chances -= 1
                oldest.is_recent = False
                ring[oldest] = None
            else:
                oldest.is_listed = False
                oldest.encrypt = oldest.decrypt = None
        return 0


cdef object _cipher(const uint8_t *key):
    return ChaCha20Poly1305(PyBytes_FromStringAndSize(<const char *> key, KEY_BYTES))


cdef bytes _nonce(uint64_t counter):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 12)
    put_nonce(<uint8_t *> PyBytes_AS_STRING(out), counter)
    return out
