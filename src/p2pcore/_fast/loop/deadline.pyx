"""A deadline for what runs inside a `with`. It costs one entry in a table.

Comes in: a loop, a second of its clock. Goes out: TimeoutError, up to a quarter of a second late, because the
loop's one coarse timer finds it. Else it is like asyncio.timeout_at: a cancellation from elsewhere passes through.
"""

from asyncio import CancelledError, current_task

cimport cython
from p2pcore._fast.loop.clock cimport monotonic
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.loop_state cimport loop_state


@cython.final
cdef class Deadline(Flushable):
    """Ends the task that is inside `with Deadline(loop, at):` at `at` seconds of the loop's clock.

    Can be entered once. Raises: TimeoutError from `with`, in place of the cancellation it sent.
    """

    def __cinit__(self, loop, double at):
        self.state = loop_state(loop)
        self.at = at

    def __enter__(self):
        self.task = current_task(self.state.loop)
        if self.task is None:
            raise RuntimeError("a deadline is for a task")
        self.cancelling = self.task.cancelling()
        self.state.timers.watch(self, self.at - monotonic())
        return self

    def __exit__(self, kind, error, traceback):
        task, self.task = self.task, None
        self.state.timers.unwatch(self)
        if self.expired and task.uncancel() <= self.cancelling and isinstance(error, CancelledError):
            raise TimeoutError from error

    cdef int overdue(self) except -1:
        self.expired = True
        self.task.cancel()
        return 0
