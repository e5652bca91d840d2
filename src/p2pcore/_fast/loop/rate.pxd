# A token bucket: how often something a peer causes may happen.
# Comes in: the time of an event. Goes out: whether it is still within the rate. Never allocates.


cdef struct Bucket:
    double level        # events that still count; all zero is a fresh bucket
    double last         # monotonic second of the last event


cdef inline bint allows(Bucket* self, double rate, double burst, double now) noexcept nogil:
    """Counts one event; False if it is one too many for `rate` a second, or `burst` at once."""
    self.level = max(0.0, self.level - (now - self.last) * rate)
    self.last = now
    if self.level + 1 > burst:
        return False
    self.level += 1
    return True
