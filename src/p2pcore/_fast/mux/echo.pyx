"""A stream that answers itself: what comes goes back on it, without a task's wake-up or a copy in between.

Comes in: a negotiated stream that nobody reads or writes. Goes out: its bytes in order, and our end behind the
peer's. Never holds more than the stream's receive window: the stream gets no credit for what waits.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from p2pcore import errors

from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.mux.stream cimport Stream


@cython.final
cdef class _Echo(Layer):
    """The sink of a stream whose bytes go back. Only its stream has it, and it does not keep the stream alive."""

    cdef int feed(self, uint8_t *data, Py_ssize_t n) except -1:
        cdef Stream stream = <Stream> self.source
        try:
            stream.hold(stream.put(data, n))
        except errors.P2PError:
            stream.reset()  # our half has ended, or may not wait: nobody can answer any more
        return 0

    cdef int feed_eof(self) except -1:
        cdef Stream stream = <Stream> self.source
        stream.detach()
        stream.close_write()
        return 0

    cdef int resume(self) except -1:
        """All that came has been sent."""
        cdef Stream stream = <Stream> self.source
        stream.hold(False)
        return stream.pour()


def echo(Stream stream not None):
    """From now on `stream` sends back what it holds and what comes; our half ends when the peer's does.

    Stream.wait_closed() says when that is over. Raises: what the stream has failed with; LocalProtocolError: somebody
    reads or writes it.
    """
    cdef _Echo sink = _Echo.__new__(_Echo)
    sink.source = <PyObject *> stream
    stream.attach(sink)
    stream.pour()
