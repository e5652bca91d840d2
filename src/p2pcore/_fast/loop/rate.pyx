"""A token bucket: how often something a peer causes may happen.

Comes in: an event. Goes out: nothing while the peer keeps to the rate, else LimitExceeded.
"""

from p2pcore import errors

from p2pcore._fast.loop.clock cimport monotonic


cdef int spend(Bucket *bucket, double per_s, double burst, str what) except -1:
    """Counts one event of now. Raises LimitExceeded: it is one too many for `per_s` a second and `burst` at once."""
    cdef double now = monotonic()
    bucket.level = max(0.0, bucket.level - (now - bucket.last) * per_s)
    bucket.last = now
    if bucket.level + 1 > burst:
        raise errors.LimitExceeded(what, <int> burst + 1, <int> burst)
    bucket.level += 1
    return 0
