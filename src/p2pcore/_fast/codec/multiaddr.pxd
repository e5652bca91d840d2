# See multiaddr.pyx.
from libc.stdint cimport uint8_t, uint32_t

from p2pcore._fast.codec.cursor cimport Cursor
from p2pcore._fast.codec.multiaddr_values cimport Kind


cdef struct Protocol:
    const uint8_t *name
    size_t name_length
    uint32_t code
    uint8_t prefix[4]     # the code as a varint
    size_t prefix_length
    Py_ssize_t size       # of the value in bytes; -1: a length precedes it
    Kind kind


cdef struct Component:
    const Protocol *protocol
    const uint8_t *start  # of the code
    const uint8_t *value
    size_t length         # of the value


cdef struct Fault:
    const char *why            # what was expected
    const Protocol *protocol   # whose value is at fault, or NULL
    const uint8_t *at          # the part of the input that is at fault
    size_t length



cdef int next_component(Cursor *c, Component *component, Fault *fault) noexcept nogil


cdef class MultiaddrValue:
    cdef readonly bytes _bytes  # the binary form, checked
