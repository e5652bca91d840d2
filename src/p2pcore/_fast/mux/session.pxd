# What every muxer's session has in common: the table of streams, inbound delivery, opening, closing.
# Comes in: calls of the swarm, and from the muxer: streams the peer opened, the end. Goes out: streams to a
# handler or to accept_stream(), each from the event loop and never from feed(). No task, no timer.
from libc.stdint cimport uint32_t

from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.crypto.secure cimport Cork
from p2pcore._fast.mux.stream cimport Stream
from p2pcore._fast.loop.waiting cimport Op


cdef class Session(Layer):
    cdef object __weakref__
    cdef public object owner        # what its streams give as `conn`
    cdef Cork cork                  # the layer below
    cdef dict streams               # id -> Stream, those not ended both ways; None: there are none
    cdef object handler             # gets inbound streams; None: they wait for accept_stream
    cdef list arrived               # inbound streams not yet delivered, oldest first
    cdef bint delivery_due          # _deliver is scheduled
    cdef list acceptors             # waiting _AcceptOps
    cdef list openers               # waiting _OpenOps
    cdef object callbacks           # the close callback, a list of several, None without any
    cdef bint is_told               # they have been called
    cdef object error               # why the session ended; None while it lives
    cdef readonly bint paused       # the socket is full
    cdef bint is_lost               # lost() has been called: the socket is gone
    cdef list closers               # waiting _CloseOps
    cdef dict waiting               # streams with writes that wait for the socket, in turn; None: none

    # for the muxer
    cdef int arrive(self, Stream stream) except -1
    cdef int end(self, object error) except -1
    cdef int wake_opener(self) except -1
    cdef int remove(self, Stream stream) except -1
    cdef list living(self)
    cdef bint forget(self, Stream stream) except -1
    cdef int waiting_add(self, Stream stream) except -1

    # for the muxer to override
    cdef Stream new_stream(self)
    cdef int accepted(self, Stream stream) except -1
    cdef int farewell(self, uint32_t code) except -1
    cdef int unpaused(self) except -1
    cdef object eof_reason(self)

    cdef int _seated(self) except -1
    cdef int _schedule_delivery(self) except -1
