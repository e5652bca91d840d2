# What a stream's sink does with it: a sink is the Layer that takes what comes as it comes, in place of reads.
# Comes in: a stream nobody reads. Goes out: feed, feed_eof and lost to the sink, and resume once all that it has
# put has been sent. A sink raises nothing: the connection is not to pay for what a stream brings.
from libc.stdint cimport uint8_t

from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.mux.stream cimport Stream

cdef int attach(Stream stream, Layer sink) except -1
cdef int pour(Stream stream) except -1
cdef bint put(Stream stream, const uint8_t* data, Py_ssize_t n) except -1
