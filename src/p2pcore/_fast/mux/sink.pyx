"""What a stream's sink does with it: a sink is the Layer that takes what comes as it comes, in place of reads.

Comes in: a stream nobody reads. Goes out: feed, feed_eof and lost to the sink, and resume once all that it
has put has been sent. A sink raises nothing: the connection is not to pay for what a stream brings. See
docs/decisions/0007.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from p2pcore import errors

from p2pcore._fast.loop.buffer cimport Block
from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.mux.stream cimport Stream
from p2pcore._fast.loop.waiting cimport again


cdef int attach(Stream stream, Layer sink) except -1:
    """What comes goes to `sink` from now on; what has come already follows with pour().

    Raises: LocalProtocolError: it has a sink, or somebody uses it; what the stream failed with.
    """
    if stream.error is not None:
        raise again(stream.error)
    if stream.sink is not None or stream.reader is not None or stream.writers or stream.answer is not None:
        raise errors.LocalProtocolError("this stream is in use otherwise")
    stream.sink = sink
    return 0


cdef int pour(Stream stream) except -1:
    """Gives the sink what has waited in the queue, until it wants no more. Never called from its feed()."""
    cdef Block block
    cdef Py_ssize_t n
    if stream.sink is not None and stream.queue is not None and stream.queue.size and not stream.holding:
        block = stream.state.records.take()
        try:
            while stream.sink is not None and stream.queue.size and not stream.holding:
                n = stream.queue.take_into(block.data, block.size)
                stream.sink.feed(block.data, n)
                stream.credit(n)
        finally:
            stream.state.records.give(block)
    return stream.maybe_tell_eof()


cdef bint put(Stream stream, const uint8_t* data, Py_ssize_t n) except -1:
    """Sends `data` for the sink, and keeps a copy of what cannot go now.

    Returns: True if something waits: resume() follows when it has been sent, and until then the sink is to put
        no more than it must. Raises: as Stream.write.
    """
    cdef Py_ssize_t k = 0
    stream.check_write()
    if not stream.writers:
        k = stream.push(data, n)
    if k < n:
        stream.write(PyBytes_FromStringAndSize(<const char*> data + k, n - k))
    return bool(stream.writers)
