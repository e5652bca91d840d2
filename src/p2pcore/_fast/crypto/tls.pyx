"""A record layer whose records are OpenSSL's: TLS below a muxer, a WebSocket, or anything else.

Comes in: plaintext in pieces from above, TLS records cut anywhere from below, a pyOpenSSL connection whose
handshake is done. Goes out: all records of a flush in one send, whole plaintexts. OpenSSL answers tickets,
key updates and alerts; no Python runs between it and the socket. Never keeps a buffer while idle.
RFC 8446, sections 5 and 6.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from p2pcore import errors, limits

from p2pcore._fast.loop.buffer cimport Block
from p2pcore._fast.crypto.openssl cimport (
    SSL_AD_REASON_OFFSET,
    SSL_ERROR_WANT_READ,
    SSL_ERROR_ZERO_RETURN,
    SSL_MODE_AUTO_RETRY,
    bio_get_mem_data,
    bio_new_mem_buf,
    bio_of,
    bio_read,
    bio_set_mem_eof_return,
    err_clear_error,
    last_error,
    new_memory_bio,
    ssl_clear_mode,
    ssl_get_error,
    ssl_of,
    ssl_read,
    ssl_set_bio,
    ssl_shutdown,
    ssl_write,
)
from p2pcore._fast.loop.rate cimport spend
from p2pcore._fast.crypto.secure cimport Cork

cdef Py_ssize_t RECORD_BYTES = limits.MAX_TLS_PLAINTEXT_BYTES
cdef double CONTROL_PER_S = limits.MAX_TLS_CONTROL_RECORDS_PER_S
cdef Py_ssize_t HEADER_BYTES = 5
# Records overwrite the plaintext they were made of, so the plaintext begins this many bytes later. Four records
# of TLS 1.3 need 88 bytes. If something else does not fit, it leaves in a send of its own.
cdef Py_ssize_t FRONT_BYTES = 256
cdef Py_ssize_t BLOCK_BYTES = limits.MAX_NOISE_RECORD_BYTES + 2
# A channel that has sent longer records than this gets a new memory BIO when it becomes idle.
cdef Py_ssize_t LARGE_OUTPUT_BYTES = 1024


@cython.final
cdef class TlsChannel(Cork):
    """TLS records below a mailbox.

    Args:
        connection: an OpenSSL.SSL.Connection over memory BIOs (made with socket None) whose handshake is
            done. Its output that nobody has taken leaves before the first record. The channel takes its SSL
            object. The connection can still tell what was negotiated, but must not be read, written or shut
            down any more.
    """

    def __cinit__(self, connection not None):
        cdef char *pending
        self.front = FRONT_BYTES
        self.most = BLOCK_BYTES - FRONT_BYTES
        self.owner = connection._ssl
        self.context = connection.get_context()
        self.ssl = ssl_of(self.owner)
        # With this mode one call of SSL_read would handle a whole flood of key updates.
        ssl_clear_mode(self.ssl, SSL_MODE_AUTO_RETRY)
        self.input = new_memory_bio()
        self.output = bio_of(connection._from_ssl)
        if bio_get_mem_data(self.output, &pending) > 0:
            self.is_output_large = True  # it has held the handshake
        else:
            self.output = new_memory_bio()
        ssl_set_bio(self.ssl, self.input, self.output)
        connection._into_ssl = connection._from_ssl = None

    # -- towards the socket --------------------------------------------------------------------

    cdef int seal(self) except -1:
        cdef uint8_t *data = self.gathered.data
        cdef Py_ssize_t at = self.front
        cdef Py_ssize_t end = at + self.used
        cdef Py_ssize_t have = 0
        cdef Py_ssize_t n
        self.used = 0
        self.sealed += 1
        while at < end:
            n = min(end - at, RECORD_BYTES)
            if ssl_write(self.ssl, data + at, <int> n) != n:
                raise errors.LocalProtocolError(f"TLS cannot write: {last_error()[1]}")
            at += n
            if n > LARGE_OUTPUT_BYTES:
                self.is_output_large = True
            if at == end and self.shut_due:
                self._put_close_notify()  # close_notify leaves with the last record
            have = self._collect(data, have, at)
        return self.below.send(data, have)

    cdef Py_ssize_t _collect(self, uint8_t *data, Py_ssize_t have, Py_ssize_t room) except -1:
        """Moves OpenSSL's output behind the `have` bytes at `data`; returns how many bytes there are then.

        If that would be more than `room`, a part leaves at once.
        """
        cdef char *pending
        cdef Py_ssize_t n = bio_get_mem_data(self.output, &pending)
        if have + n > room:
            self.below.send(data, have)
            have = 0
            while n > room:
                bio_read(self.output, data, <int> room)
                self.below.send(data, room)
                n -= room
        bio_read(self.output, data + have, <int> n)
        return have + n

    cdef int _send_output(self) except -1:
        """Sends what OpenSSL has put out by itself: alerts."""
        cdef char *pending
        cdef long n = bio_get_mem_data(self.output, &pending)
        if n > 0 and self.below is not None:
            self.below.send(<const uint8_t *> pending, n)
            self._renew_output()
        return 0

    cdef int send_close_notify(self) except -1:
        self._put_close_notify()
        return self._send_output()

    cdef int _put_close_notify(self) except -1:
        """Puts out the close_notify, once: a second SSL_shutdown would read."""
        if not self.close_notify_put:
            self.close_notify_put = True
            err_clear_error()
            ssl_shutdown(self.ssl)
            err_clear_error()
        return 0

    cdef int _give_back(self) except -1:
        cdef char *pending
        if self.is_output_large and bio_get_mem_data(self.output, &pending) == 0:
            self._renew_output()
        return Cork._give_back(self)

    # -- towards the application ---------------------------------------------------------------

    cdef int feed(self, uint8_t *data, Py_ssize_t n) except -1:
        if self.input_ended:
            return 0
        self._follow(data, n)
        self._supply(data, n)
        return self._read_all()

    cdef int _follow(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Follows the headers of records, to know at the end of input whether a record is cut off."""
        cdef Py_ssize_t k
        while n > 0:
            if self.header_len < HEADER_BYTES:
                self.header[self.header_len] = data[0]
                self.header_len += 1
                k = 1
                if self.header_len == HEADER_BYTES:
                    self.to_come = (self.header[3] << 8) | self.header[4]
            else:
                k = min(n, self.to_come)
                self.to_come -= k
            if self.header_len == HEADER_BYTES and self.to_come == 0:
                self.header_len = 0
                self.received += 1
            data += k
            n -= k
        if self.header_len and not self.is_timed:
            self.has_begun()
        if self.has_part != (self.header_len != 0):
            self.has_part = not self.has_part
            self.tally(RECORD_BYTES if self.has_part else -RECORD_BYTES, 0)
        return 0

    cdef uint64_t progress(self) except? 0:
        """A record must become whole: a byte now and then is not enough to keep its buffer."""
        return 1 + self.received if self.header_len else 0

    cdef int _supply(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Lets OpenSSL read `data` where it is. Before `feed` returns, it has taken all, or has failed for good."""
        self.input = bio_new_mem_buf(data, <int> n)
        if self.input == NULL:
            raise MemoryError("no memory for a BIO")
        bio_set_mem_eof_return(self.input, -1)
        ssl_set_bio(self.ssl, self.input, self.output)
        return 0

    cdef int _read_all(self) except -1:
        """Decrypts what has come and feeds it up, several records at once."""
        cdef Block block = self.state.records.take()
        cdef Py_ssize_t filled = 0
        cdef int n, status = SSL_ERROR_WANT_READ
        err_clear_error()
        try:
            while self.above is not None:
                n = ssl_read(self.ssl, block.data + filled, <int> RECORD_BYTES)
                if n > 0:
                    filled += n
                    if filled + RECORD_BYTES > block.size:
                        self._feed_up(block, filled)
                        filled = 0
                    continue
                status = ssl_get_error(self.ssl, n)
                if status != SSL_ERROR_WANT_READ or not self._has_more():
                    break
            if filled and self.above is not None:
                self._feed_up(block, filled)
        finally:
            self.state.records.give(block)
        if status != SSL_ERROR_WANT_READ:
            self._stop_reading(status)
        return 0

    cdef int _feed_up(self, Block block, Py_ssize_t n) except -1:
        self.has_read = True
        return self.above.feed(block.data, n)

    cdef bint _has_more(self) except -1:
        """Whether OpenSSL stopped at a record without data: a ticket, a key update."""
        cdef char *rest
        if bio_get_mem_data(self.input, &rest) <= 0:
            return False
        spend(&self.control, CONTROL_PER_S, CONTROL_PER_S, "MAX_TLS_CONTROL_RECORDS_PER_S")
        return True

    cdef int _stop_reading(self, int status) except -1:
        """Reading is over: the peer sent close_notify, or one side sent an alert."""
        if status == SSL_ERROR_ZERO_RETURN:
            self.input_ended = True
            if self.above is not None:
                self.above.feed_eof()
            return 0
        reason, words = last_error()
        self._send_output()
        if reason >= SSL_AD_REASON_OFFSET and not self.has_read:
            # The peer decides whether it accepts us only after our side of the handshake is done.
            return self.drop(errors.HandshakeError(f"the peer refused the TLS handshake: {words}"))
        raise errors.RemoteProtocolError(f"TLS: {words}")

    cdef int feed_eof(self) except -1:
        if self.input_ended:
            return 0
        if self.header_len:
            raise errors.ConnectionClosed("the connection ended inside a TLS record")
        # No close_notify is no error, as in go and rust: all protocols that run on TLS here have ends of their own.
        self.input_ended = True
        return self.above.feed_eof()

    cdef int lost(self, object error) except -1:
        Cork.lost(self, error)
        self.ssl = self.input = self.output = NULL
        self.owner = self.context = None
        return 0

    cdef int _renew_output(self) except -1:
        """Replaces the output's empty BIO by a small one."""
        self.is_output_large = False
        if self.ssl != NULL:
            self.output = new_memory_bio()
            ssl_set_bio(self.ssl, self.input, self.output)
        return 0


def take_input(connection not None):
    """Whole records that a connection was given and has not read. Its handshake is done."""
    return _emptied(bio_of(connection._into_ssl))


def take_output(connection not None):
    """A connection's output for the peer; b"" if there is none."""
    return _emptied(bio_of(connection._from_ssl))


cdef bytes _emptied(void *bio):
    cdef char *data
    cdef Py_ssize_t n = bio_get_mem_data(bio, &data)
    cdef bytes out
    if n <= 0:
        return b""
    out = PyBytes_FromStringAndSize(NULL, n)
    bio_read(bio, PyBytes_AS_STRING(out), <int> n)
    return out
