# See session.pyx.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.crypto.secure cimport Cork
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.rate cimport Bucket
from p2pcore._fast.mux.open_frame cimport OpenFrame
from p2pcore._fast.mux.stream cimport Stream


cdef class Session


cdef class _Closing(Flushable):
    cdef Session session
    cdef uint32_t code


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
    cdef _Closing closing           # close() was called, and writes wait; None before
    cdef object error               # why the session ended; None while it lives
    cdef readonly bint paused       # the socket is full
    cdef bint is_lost               # lost() has been called: the socket is gone
    cdef list closers               # waiting _CloseOps
    cdef uint32_t num_writing       # streams with a write that waits, for whatever
    cdef dict waiting               # streams with writes that wait for the socket, in turn; None: none

    cdef uint32_t max_inbound
    cdef uint32_t num_inbound       # inbound streams in the table
    cdef uint64_t late              # frames that may still be under way to streams that have ended, whatever the rate
    cdef Bucket refusals            # streams the peer opened and we refused
    cdef Bucket resets              # streams the peer opened and reset
    cdef Bucket useless             # frames that bring nothing: for unknown streams, or empty

    cdef Stream growing             # whose frame `frame` is; None: no frame can grow
    cdef OpenFrame frame            # the last data frame written

    # for the muxer
    cdef int arrive(self, Stream stream) except -1
    cdef bint is_full(self, Py_ssize_t max_unaccepted) except -1
    cdef int violated(self, object error) except -1
    cdef int wake_opener(self) except -1
    cdef int writes_done(self) except -1
    cdef list living(self)
    cdef bint forget(self, Stream stream) except -1
    cdef int waiting_add(self, Stream stream) except -1

    # for the muxer to override
    cdef int fail(self, object error) except -1
    cdef int parse(self, uint8_t *data, Py_ssize_t n) except -1
    cdef Stream new_stream(self)
    cdef int accepted(self, Stream stream) except -1
    cdef int send_go_away(self, uint32_t code) except -1
    cdef int unpaused(self) except -1
    cdef object eof_reason(self)
    cdef int remove(self, Stream stream) except -1

    cdef int _seated(self) except -1
    cdef int _close_now(self, uint32_t code) except -1
    cdef int _schedule_delivery(self) except -1
    cdef bint _is_due(self, Stream stream) except -1
