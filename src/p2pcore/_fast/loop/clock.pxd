# See clock.pyx.
from posix.time cimport CLOCK_MONOTONIC, timespec
from posix.types cimport clockid_t

ctypedef int (*ReadClock)(clockid_t clock, timespec *out) noexcept nogil

cdef ReadClock read_clock   # clock_gettime, or what stands in for it: by a pointer that costs no more than the call


cdef inline double monotonic() noexcept nogil:
    """Seconds of the clock that asyncio's loops use too."""
    cdef timespec now
    read_clock(CLOCK_MONOTONIC, &now)
    return <double> now.tv_sec + <double> now.tv_nsec * 1e-9


cdef extern from *:
    """
    #include <time.h>
    #ifdef CLOCK_MONOTONIC_COARSE
    #define P2PCORE_COARSE CLOCK_MONOTONIC_COARSE
    #else
    #define P2PCORE_COARSE CLOCK_MONOTONIC
    #endif
    """
    const int P2PCORE_COARSE


cdef inline double coarse() noexcept nogil:
    """As monotonic(), some milliseconds late and several times as cheap."""
    cdef timespec now
    read_clock(P2PCORE_COARSE, &now)
    return <double> now.tv_sec + <double> now.tv_nsec * 1e-9
