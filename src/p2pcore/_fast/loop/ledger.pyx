"""What the connections of one host use, counted: streams by connection, peer and host, and bytes in memory.

Comes in: sessions that begin and end, streams they open and remove, bytes that queues take in and give out, limits.
Goes out: counts, the name of a limit that is reached, the state of the memory. Never closes anything itself, never
calls its owner inside a frame. It holds nothing for an idle connection but its share of a peer.
"""

import asyncio
import gc
import logging
from contextlib import suppress
from weakref import WeakSet

cimport cython
from libc.stdint cimport INT64_MIN, UINT64_MAX, int64_t, uint32_t, uint64_t

from p2pcore import limits

from p2pcore._fast.loop.clock cimport monotonic
from p2pcore._fast.loop.loop_state cimport loop_state

cdef extern from *:
    """
    #ifdef __linux__
    #include <stddef.h>
    extern int malloc_trim(size_t) __attribute__((weak)); /* musl lacks it */
    static void trim(void) { if (malloc_trim) malloc_trim(0); }
    #else
    static void trim(void) {}
    #endif
    """
    void trim()

logger = logging.getLogger("p2pcore.limits")

cdef double WARNING_S = limits.REFUSED_WARNING_S
cdef int64_t STREAM_COST = limits.STREAM_COST_BYTES
cdef int64_t TRIM_BYTES = limits.MEMORY_TRIM_BYTES
cdef double ENDED_S = limits.MEMORY_ENDED_S
cdef double TRIM_AFTER_S = limits.MEMORY_TRIM_AFTER_S
cdef int64_t FAIR_TIMES = limits.MEMORY_FAIR_TIMES
# Percent of the budget at which a state begins, and below which it ends.
cdef int64_t[4] ENTER = [0, limits.MEMORY_CAREFUL_PERCENT, limits.MEMORY_TIGHT_PERCENT, limits.MEMORY_FULL_PERCENT]
cdef int64_t[4] LEAVE = [
    0, limits.MEMORY_CAREFUL_END_PERCENT, limits.MEMORY_TIGHT_END_PERCENT, limits.MEMORY_FULL_END_PERCENT]

globals().update(CALM=CALM, CAREFUL=CAREFUL, TIGHT=TIGHT, FULL=FULL)


@cython.final
cdef class Share:
    """What one peer uses. Nobody but the ledger and the sessions of the peer changes `held`."""

    @property
    def is_unused(self):
        """Whether the peer has neither a connection nor a handler that runs."""
        return not (self.conns or self.streams or self.handlers)


@cython.final
cdef class Ledger:
    """The counts of one host, and their limits. All limits may be set at any time, 0 for none.

    Args:
        max_streams: open streams, inbound and outbound.
        max_streams_per_conn, max_streams_per_peer: inbound streams in use.
        memory: the budget, bytes.

    Attributes:
        num_conns, num_streams: now. A stream that was closed here counts until the peer ends it.
        unread, unsent: bytes received that nobody has read, and bytes written that have not left.
        bytes_in, bytes_out: bytes from and to all peers so far, handshakes included.
        used: bytes of the budget: these two, and CONN_COST_BYTES and STREAM_COST_BYTES for each of the former two.
        state: CALM, CAREFUL, TIGHT or FULL.
        ended: streams that have ended and hold more than STREAM_COST_BYTES which nobody has read.
        on_state: called from the event loop with (old, new) after the state has changed.
    """

    def __cinit__(
        self, max_streams=0, max_streams_per_conn=0, max_streams_per_peer=0, int64_t memory=0
    ):
        self.ended = Ended()
        self.shares = {}
        self.counts = {}
        self.warned = {}
        self.max_streams = max_streams
        self.max_streams_per_conn = max_streams_per_conn
        self.max_streams_per_peer = max_streams_per_peer
        self.memory = memory

    # -- limits --------------------------------------------------------------------------------

    @property
    def max_streams(self):
        return _shown(self.most_streams)

    @max_streams.setter
    def max_streams(self, value):
        self.most_streams = _kept(value)

    @property
    def max_streams_per_conn(self):
        return _shown(self.most_per_conn)

    @max_streams_per_conn.setter
    def max_streams_per_conn(self, value):
        self.most_per_conn = _kept(value)

    @property
    def max_streams_per_peer(self):
        return _shown(self.most_per_peer)

    @max_streams_per_peer.setter
    def max_streams_per_peer(self, value):
        self.most_per_peer = _kept(value)

    @property
    def memory(self):
        return self.budget

    @memory.setter
    def memory(self, int64_t value):
        if not 0 <= value <= limits.MAX_SIZE_BYTES:
            raise ValueError(f"memory must be 0 to {limits.MAX_SIZE_BYTES} bytes, not {value}")
        self.budget = value
        self._move()

    # -- counts --------------------------------------------------------------------------------

    @property
    def num_peers(self):
        """Peers with a share."""
        return len(self.shares)

    @property
    def peaks(self):
        """The highest values of num_conns, num_streams and used so far, by name."""
        most_used = max(self.most_used, self.high)
        return {"num_conns": self.most_conns, "num_streams": self.most_streams_seen, "used": most_used}

    @property
    def refused(self):
        """How often each limit has refused something, by its name. No number ever falls."""
        return dict(self.counts)

    def share(self, peer):
        """The share of `peer`, made if there is none."""
        found = self.shares.get(peer)
        if found is None:
            found = self.shares[peer] = Share.__new__(Share)
        return found

    def forget(self, peer):
        """Drops the share of `peer` if it is unused. Called when a connection, or a handler that outlives it, ends."""
        found = self.shares.get(peer)
        if found is not None and found.is_unused:
            del self.shares[peer]
            if not self.shares:
                self.shares = {}  # an empty dict keeps its memory

    def recount(self, sessions):
        """Counts anew what `sessions`, all that were ever given to this ledger and live, use. For tests: it is slow.

        Returns: for each figure that is not what is counted here: (counted, recounted). {}: all agree.
        """
        found = {"num_conns": 0, "num_streams": 0, "unread": 0, "unsent": 0}
        sessions = list(sessions)
        streams = [each for each in gc.get_objects() if hasattr(type(each), "num_held")]
        for session in sessions:
            for name, count in session.recount(streams).items():
                found[name] += count
        found["used"] = (found["unread"] + found["unsent"] + found["num_conns"] * limits.CONN_COST_BYTES
                         + found["num_streams"] * limits.STREAM_COST_BYTES)
        return {name: (getattr(self, name), count) for name, count in found.items() if getattr(self, name) != count}

    cdef int count_conn(self) except -1:
        """One connection more. Its cost is weighed by the caller."""
        self.num_conns += 1
        self.most_conns = max(self.most_conns, self.num_conns)
        return 0

    cdef int count_streams(self, Share share, int by) except -1:
        """`by` open streams more, of a peer."""
        self.num_streams = <uint32_t> (<int64_t> self.num_streams + by)  # unsigned and -1: "overflow" when checked
        if self.num_streams > self.most_streams_seen:
            self.most_streams_seen = self.num_streams
        share.held += by * STREAM_COST
        return weigh(self, by * STREAM_COST)

    # -- refusing ------------------------------------------------------------------------------

    cdef str limit_reached(self, uint64_t num_inbound, Share share):
        """The limit that one more stream of the peer would exceed; None: there is room.

        Args: num_inbound: streams of the peer in use on this connection. share: the peer's.
        """
        if num_inbound >= self.most_per_conn:
            return "max_streams_per_conn"
        if share.streams >= self.most_per_peer:
            return "max_streams_per_peer"
        if self.num_streams >= self.most_streams:
            return "max_streams"
        if self.state >= TIGHT and self.has_its_part(share):
            return "memory"
        return None

    cdef bint has_its_part(self, Share share) noexcept:
        """Whether a peer holds so much that it gets no more streams: while memory is tight, four equal parts of the budget,
        and where it is full, half of one. So nobody is refused for what others hold.
        """
        cdef int64_t equal = self.budget // max(1, len(self.shares))
        return share.held > (equal // 2 if self.state == FULL else equal * FAIR_TIMES)

    cdef int refuse_stream(self, str limit, object who, uint64_t num_inbound, Share share) except -1:
        """Counts a stream of the peer that is reset for `limit`, which limit_reached() has named."""
        if limit == "max_streams_per_conn":
            self.refuse(limit, who, num_inbound, self.most_per_conn)
        elif limit == "max_streams_per_peer":
            self.refuse(limit, who, share.streams, self.most_per_peer)
        elif limit == "max_streams":
            self.refuse(limit, who, self.num_streams, self.most_streams)
        else:
            self.refuse(limit, who, self.used, self.budget)
        return 0

    def refuse(self, str limit not None, who, used, maximum, str setting=None):
        """Counts one refusal because of `limit`. One warning a limit and REFUSED_WARNING_S says so.

        Args:
            who: the connection or peer, as logs name it.
            used, maximum: what is in use, and the limit.
            setting: the option that changes it; None: the field of Limits with this name.
        """
        cdef double now = monotonic()
        count = self.counts[limit] = self.counts.get(limit, 0) + 1
        at, said = self.warned.get(limit, (0.0, 0))
        if not said or now - <double> at >= WARNING_S:
            self.warned[limit] = (now, count)
            logger.warning("%s: refused, %d of %d are in use (%s; %d refused since the last warning)",
                           who, used, maximum, setting or f"Limits.{limit}", count - <int> said)

    # -- the state of the memory -----------------------------------------------------------------

    cdef int _move(self) except -1:
        """Finds the state that `used` asks for. A state ends below the figure at which it begins: it does not flap."""
        self.high = max(self.high, self.used)
        if not self.budget:
            self.state = CALM
        else:
            while self.state < FULL and self.used >= self._part(ENTER[self.state + 1]):
                self.state += 1
            while self.state > CALM and self.used < self._part(LEAVE[self.state]):
                self.state -= 1
        self._aim()
        if self.state != self.told and not self.is_telling:
            try:
                asyncio.get_running_loop().call_soon(self._tell)
                self.is_telling = True
            except RuntimeError:
                pass  # limits were set where no loop runs: there is nobody to relieve
        return 0

    cdef int _drop_ended(self) except -1:
        """No connection can be closed to free what streams hold that have ended. If they keep it, it is dropped."""
        self.ended.watch(self)
        return 0

    cdef int _aim(self) except -1:
        """Sets the figures at which _move() is called next, and has memory given back where much has become free."""
        self.rises_at = self.used + TRIM_BYTES
        self.falls_at = self.high // 2 if self.high >= TRIM_BYTES else INT64_MIN
        if self.budget and self.state < FULL:
            self.rises_at = min(self.rises_at, self._part(ENTER[self.state + 1]))
        if self.state > CALM:
            self.falls_at = max(self.falls_at, self._part(LEAVE[self.state]))
        if self.high >= TRIM_BYTES and self.used < self.high // 2:  # _trim looks again, so falls_at needs not
            self.falls_at = INT64_MIN if self.state == CALM else self._part(LEAVE[self.state])
            if not self.is_trimming:
                with suppress(RuntimeError):
                    asyncio.get_running_loop().call_later(TRIM_AFTER_S, self._trim)
                    self.is_trimming = True
        return 0

    def _trim(self):
        """Gives free memory back to the system, once after much was used: the C library keeps what it was given."""
        self.is_trimming = False
        self.most_used = max(self.most_used, self.high)
        if self.used < self.high // 2:
            self.high = self.used
            _give_back()
        self._move()

    cdef int64_t _part(self, int64_t percent) noexcept:
        """So much of the budget, in whole bytes, at least 1."""
        return (self.budget * percent + 99) // 100

    def _tell(self):
        cdef int was = self.told
        self.is_telling = False
        self.told = self.state
        if self.state == FULL:
            self._drop_ended()
        if was != self.state and self.on_state is not None:
            try:
                self.on_state(was, self.state)
            except Exception:
                logger.exception("what reacts to the state of the memory failed")


class Ended(WeakSet):
    """Streams that have ended and hold bytes which nobody has read. While memory is full, they have ENDED_S for it."""

    def __init__(self):
        super().__init__()
        self._timer = None

    def watch(self, ledger):
        """Drops the bytes of those that are here now and in ENDED_S, and so on as long as memory is full."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(ENDED_S, self._look, ledger, WeakSet(self))

    def _look(self, ledger, old):
        self._timer = None
        for stream in old:
            if ledger.state == FULL:
                self.discard(stream)
                stream.drop_unread()
        if ledger.state == FULL:
            self.watch(ledger)


cdef uint64_t _kept(value) except? 0:
    if not 0 <= value <= limits.MAX_COUNT:
        raise ValueError(f"a limit of streams must be 0 to {limits.MAX_COUNT}, not {value}")
    return <uint64_t> value or UINT64_MAX


cdef object _shown(uint64_t value):
    return 0 if value == UINT64_MAX else value


def _give_back():
    """Gives free memory back: the record buffers that the loop keeps, and what the C library keeps, if it is glibc."""
    loop_state(asyncio.get_running_loop()).records.free.clear()
    trim()
