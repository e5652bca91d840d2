# A token bucket: how often something a peer causes may happen.
# Comes in: the time of an event. Goes out: whether it is still within the rate. Never allocates.


cdef struct Bucket:
    double tokens       # events allowed at once, now
    double last         # monotonic second of the last event
    double rate         # events a second
    double burst        # most tokens


cdef inline Bucket bucket(double rate, double burst) noexcept nogil:
    cdef Bucket out
    out.tokens = out.burst = burst
    out.rate = rate
    out.last = 0
    return out


cdef inline bint allows(Bucket* self, double now) noexcept nogil:
    """Counts one event; False if it is one too many."""
    if self.last:
        self.tokens = min(self.burst, self.tokens + (now - self.last) * self.rate)
    self.last = now
    if self.tokens < 1:
        return False
    self.tokens -= 1
    return True
