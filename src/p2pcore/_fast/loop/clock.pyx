"""The clock of all deadlines of compiled modules.

Comes in: the system's monotonic clock, or the time at which a test lets it stand. Goes out: seconds. There is one
clock in a process. A virtual event loop (p2pcore.testing) stops it while it runs, and nothing else ever does.
"""

frozen_at = -1


def freeze(double at):
    """The clock stands at `at` seconds, 0 or more, until the next call or thaw()."""
    global frozen_at
    if not at >= 0:
        raise ValueError(f"at must be a number of seconds from 0, not {at!r}")
    frozen_at = at


def thaw():
    """The clock is the system's again."""
    global frozen_at
    frozen_at = -1


def is_frozen():
    """Whether it stands."""
    return frozen_at >= 0


def now():
    """What compiled modules take for the present second."""
    return monotonic()
