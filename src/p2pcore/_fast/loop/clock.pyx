"""The clock of all deadlines of compiled modules.

Comes in: the system's monotonic clock, or the time at which a test lets it stand. Goes out: seconds. There is one
clock in a process. A virtual event loop (p2pcore.testing) stops it while it runs, and nothing else ever does.
"""

from libc.math cimport floor
from posix.time cimport clock_gettime, timespec
from posix.types cimport clockid_t

cdef double frozen_at = -1  # the second at which the clock stands; less than 0: it runs
read_clock = <ReadClock> clock_gettime


cdef int _frozen(clockid_t clock, timespec *out) noexcept nogil:
    out.tv_sec = <long> floor(frozen_at)
    out.tv_nsec = <long> ((frozen_at - floor(frozen_at)) * 1e9 + 0.5)
    return 0


def freeze(double at):
    """The clock stands at `at` seconds, 0 to less than 1e12, to the nanosecond, until the next call or thaw()."""
    global frozen_at, read_clock
    if not 0 <= at < 1e12:
        raise ValueError(f"at must be a number of seconds from 0 to less than 1e12, not {at!r}")
    frozen_at = at
    read_clock = _frozen


def thaw():
    """The clock is the system's again."""
    global frozen_at, read_clock
    frozen_at = -1
    read_clock = <ReadClock> clock_gettime


def is_frozen():
    """Whether it stands."""
    return frozen_at >= 0


def now():
    """What compiled modules take for the present second."""
    return monotonic()
