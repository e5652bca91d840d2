# What every bottom of a chain has in common: how it ends, in good order or at once, and never inside feed().
# Comes in: shut() and drop() of the chain, what feeding raised. Goes out: finish(), which a subclass fills in.
# Never forgets the first reason to end; never closes while it feeds.
from p2pcore._fast.chain.layer cimport Layer


cdef class Bottom(Layer):
    cdef double moved_at        # monotonic second at which the peer was last seen to take something, while paused
    cdef bint feeding           # inside feed(): closing waits until it returns
    cdef bint shutting          # shut() was called: the end follows what is queued
    cdef object error           # the first reason to end at once, which lost() will carry
    cdef readonly bint is_closed    # lost() has been called, or follows

    cdef int fail(self, object error) except -1
    cdef int refuse(self, object error) except -1
    cdef int finish(self) except -1
