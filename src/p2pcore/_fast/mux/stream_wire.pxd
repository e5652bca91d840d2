# The bottom of a chain that runs through a stream of another connection, as Wire is on a socket.
# Comes in: what the stream receives, without a copy. Goes out: the stream's data, with its back-pressure.
# Never has a task; never lets what it carries harm the connection that carries it.
from libc.stdint cimport uint8_t

from p2pcore._fast.chain.bottom cimport Bottom
from p2pcore._fast.mux.stream cimport Stream


cdef class StreamWire(Bottom):
    cdef Stream stream
    cdef bint started           # the stream gives us what it receives
    cdef bint queued            # bytes wait for the stream's window, or its connection's socket
    cdef Py_ssize_t over        # bytes sent while `queued`: control frames, bounded
    cdef Py_ssize_t unsent      # bytes that waited when that was last looked at
    cdef bint fin_due           # ... and the end of our data follows what waits

    cdef int _end(self) except -1
    cdef int _maybe_end(self) except -1
    cdef int _fed(self) except -1
    cdef Py_ssize_t _waiting(self) except -1
