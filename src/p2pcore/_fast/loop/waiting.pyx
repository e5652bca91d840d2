"""Awaitables without coroutines: an Op tries, and only if it must wait does it make a future.

Comes in: a LoopState for futures and timers. Goes out: values to `await`. Never holds what it waits
for: nothing is taken before the waiting task runs again, so cancelling loses nothing.
"""

from asyncio import Future

from p2pcore import limits

cimport cython
from p2pcore._fast.loop.loop_state cimport monotonic

PENDING = object()
cdef Py_ssize_t FLUSH_AFTER = limits.FLUSH_AFTER_TASKS


cdef class Op:
    """Something that can be awaited; a subclass says how it is attempted.

    It has send, throw and close as a coroutine has, so that `create_task` takes it too.
    """

    def __init__(self):
        raise TypeError(f"a {type(self).__name__} is made by the call that returns it")

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.step()

    def send(self, value):
        return self.step()

    def throw(self, kind, value=None, traceback=None):
        self.close()
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        raise value

    def close(self):
        self._resumed()
        self.abandoned()

    def __dealloc__(self):
        # The garbage collector may have cleared `state` already.
        if self.is_woken and self.state is not None:
            self.state.num_woken -= 1

    cdef object attempt(self):
        """The result, or PENDING. Raises what the awaiting task shall see."""
        raise NotImplementedError

    cdef int suspended(self) except -1:
        """The task now waits: enlist with whoever calls wake()."""
        return 0

    cdef int abandoned(self) except -1:
        """The task no longer waits: leave again. Also called when never suspended."""
        return 0

    cdef double deadline(self) except -2:
        """The monotonic second at which to attempt once more, 0 for never."""
        return 0

    cdef object step(self):
        cdef Py_ssize_t resumed
        if self.future is not None:
            if not self.future.done():
                raise RuntimeError("this call is already being awaited")
            self._resumed()
        value = self.attempt()
        if value is not PENDING:
            raise StopIteration(value)
        self.future = future = Future(loop=self.state.loop)
        self.suspended()
        self.rearm()
        future._asyncio_future_blocking = True
        # The last of the tasks that were woken now waits: what they wrote leaves at once. Tasks that nobody woke
        # (new ones, for streams that arrived together) wait for the end of the iteration, and share a record.
        # Of many, a part leaves before: the peer works on it while the others run.
        resumed = self.state.num_resumed
        if self.state.due and resumed and (self.state.num_woken == 0 or resumed >= FLUSH_AFTER):
            self.state.flush_now()
        return future

    cdef int wake(self) except -1:
        """Lets the waiting task attempt again; does nothing if none waits."""
        if self.future is not None and not self.future.done():
            self.future.set_result(None)
            self.is_woken = True
            self.state.num_woken += 1
        return 0

    cdef int _resumed(self) except -1:
        """The task runs again."""
        self.future = None
        if self.is_woken:
            self.is_woken = False
            self.state.num_woken -= 1
            self.state.num_resumed += 1
        return self._disarm()

    cdef int rearm(self) except -1:
        """Sets the timer by what deadline() says now."""
        cdef double at = self.deadline()
        self._disarm()
        if at > 0 and self.future is not None:
            # One millisecond more: uvloop's timers count whole milliseconds and may fire early.
            self.timer = self.state.loop.call_later(max(0.0, at - monotonic()) + 0.001, self._expire)
        return 0

    def _expire(self):
        self.timer = None
        self.wake()

    cdef int _disarm(self) except -1:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return 0


@cython.final
cdef class _Done(Op):
    cdef object step(self):
        raise StopIteration


cdef object again(object error):
    """`error`, to be raised once more: without this its traceback would grow, and keep frames, each time."""
    error.__traceback__ = None
    return error


done = _Done.__new__(_Done)
