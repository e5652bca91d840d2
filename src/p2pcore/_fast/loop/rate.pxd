# See rate.pyx.
cdef struct Bucket:
    double level        # events that still count; all zero is a fresh bucket
    double last         # monotonic second of the last event


cdef int spend(Bucket *bucket, double per_s, double burst, str what) except -1
