# See clock.pyx. Inline functions, for modules that call them once a packet.
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef double frozen_at       # the second at which the clock stands; less than 0: it runs


cdef inline double monotonic() noexcept nogil:
    """Seconds of the clock that asyncio's loops use too."""
    cdef timespec now
    if frozen_at >= 0:
        return frozen_at
    clock_gettime(CLOCK_MONOTONIC, &now)
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
    if frozen_at >= 0:
        return frozen_at
    clock_gettime(P2PCORE_COARSE, &now)
    return <double> now.tv_sec + <double> now.tv_nsec * 1e-9
