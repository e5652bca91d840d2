# See stream_wire.pyx.
from p2pcore._fast.chain.bottom cimport Bottom
from p2pcore._fast.mux.stream cimport Stream


cdef class StreamWire(Bottom):
    cdef Stream stream
    cdef bint is_orderly        # our half ended in order, behind all that was sent
    cdef bint started           # the stream gives us what it receives
