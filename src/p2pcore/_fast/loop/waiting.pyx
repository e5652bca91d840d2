"""Awaitables without coroutines: an Op tries first, and makes a future only if it must wait.

Comes in: a LoopState for futures and timers. Goes out: values to `await`. Takes nothing before the waiting task
runs again, so a cancelled wait loses nothing.
"""

from asyncio import Future, InvalidStateError

from p2pcore import limits
from p2pcore.errors import P2PError

cimport cython
from cpython.object cimport PyObject, PyObject_Call
from cpython.ref cimport Py_INCREF
from p2pcore._fast.loop.clock cimport monotonic

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT

    ctypedef struct AwaitSlots "PyAsyncMethods":
        PySendResult (*am_send)(PyObject *, PyObject *, PyObject **) except PYGEN_ERROR

    ctypedef struct AwaitedType "PyTypeObject":
        AwaitSlots *tp_as_async

PENDING = object()
cdef Py_ssize_t FLUSH_AFTER = limits.FLUSH_AFTER_TASKS
cdef Py_ssize_t TURN_WORK = limits.TURN_WORK
cdef Py_ssize_t WAKE_WORK = limits.WAKE_WORK


cdef class Op:
    """Something that can be awaited. A subclass says in attempt() how.

    It has send, throw and close, as a coroutine has, so `create_task` accepts it.
    """

    def __init__(self):
        raise TypeError(f"a {type(self).__name__} is made by the call that returns it")

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef bint is_over = False
        result = self.step(&is_over)
        if is_over:
            raise StopIteration(result)
        return result

    def send(self, value):
        return self.__next__()

    def throw(self, kind, value=None, traceback=None):
        self.close()
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        raise value

    def close(self):
        self._resumed()
        self.cancelled()

    def __dealloc__(self):
        # The garbage collector may have cleared `state` already.
        if self.is_woken and self.state is not None:
            self.state.flusher.num_woken -= 1

    cdef object attempt(self):
        """The result, or PENDING. What it raises goes to the waiting task."""
        raise NotImplementedError

    cdef int suspended(self) except -1:
        """The task waits now. Overridden to tell whoever will call wake()."""
        return 0

    cdef int cancelled(self) except -1:
        """The task waits no longer, and wants nothing. Also called if it never waited."""
        return 0

    cdef double deadline(self) except -2:
        """The monotonic second at which to attempt again; 0 for never."""
        return 0

    cdef object step(self, bint *is_over):
        """The result, and sets `is_over`; or a future to wait for."""
        cdef Py_ssize_t resumed
        if self.future is not None:
            if not self.is_woken and not self.future.done():
                raise RuntimeError("this call is already being awaited")
            self._resumed()
        value = self.attempt()
        if value is not PENDING:
            is_over[0] = True
            return value
        self.future = future = PyObject_Call(Future, (), self.state.of_loop)
        self.suspended()
        self.rearm()
        future._asyncio_future_blocking = True
        # If this is the last of the tasks that were woken, what they wrote leaves at once. What new tasks write
        # (those of streams that arrived together) leaves at the end of the iteration, in shared records. If many
        # tasks were woken, a part leaves earlier, so that the peer can work while the others run.
        resumed = self.state.flusher.num_resumed
        if resumed and self.state.flusher.num_woken == 0:
            self.state.rota.room = TURN_WORK  # all that this turn has woken has run: no renewal needs to be scheduled
        if self.state.flusher.due and resumed and (self.state.flusher.num_woken == 0 or resumed >= FLUSH_AFTER):
            self.state.flusher.flush_now()
        return future

    cdef int wake(self) except -1:
        """Lets the waiting task attempt again. Does nothing if none waits."""
        if self.future is not None and not self.is_woken:
            try:
                self.future.set_result(None)
            except InvalidStateError:  # the task was cancelled: rare, and asking first costs as much as the rest
                return 0
            self.is_woken = True
            self.state.flusher.num_woken += 1
            self.state.rota.room -= WAKE_WORK
        return 0

    cdef int _resumed(self) except -1:
        """The task runs again."""
        self.future = None
        if self.is_woken:
            self.is_woken = False
            self.state.flusher.num_woken -= 1
            self.state.flusher.num_resumed += 1
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
        if self.state.rota.room <= 0 and self.future is not None:
            # Deadlines of very many calls are over together. Those that are too many for this turn wake a little later.
            self.state.rota.renew_soon()
            self.timer = self.state.loop.call_later(0.001, self._expire)
        else:
            self.wake()

    cdef int _disarm(self) except -1:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return 0


@cython.final
cdef class _Done(Op):
    cdef object step(self, bint *is_over):
        is_over[0] = True
        return None


@cython.final
cdef class _Failed(Op):
    cdef object error

    cdef object step(self, bint *is_over):
        raise again(self.error)


cdef PySendResult _send(PyObject *op, PyObject *_, PyObject **result) except PYGEN_ERROR:
    """What `await` calls. It returns the value that __next__ has to raise in a StopIteration."""
    cdef bint is_over = False
    result[0] = NULL
    found = (<Op> op).step(&is_over)
    Py_INCREF(found)
    result[0] = <PyObject *> found
    return PYGEN_RETURN if is_over else PYGEN_NEXT


cdef int _await_by_send(type kind) except -1:
    """Cython has no name for this slot. Types that are derived in other modules inherit it."""
    (<AwaitedType *> <PyObject *> kind).tp_as_async.am_send = _send
    return 0


for _kind in (Op, _Done, _Failed):
    _await_by_send(_kind)


cdef Op failed(object error):
    """Something that raises `error` when it is awaited."""
    cdef _Failed op = _Failed.__new__(_Failed)
    op.error = error
    return op


cdef object again(object error):
    """What to raise for `error`, which somebody keeps: a copy. The traceback of what is raised refers to the frames it
    goes through, these to the stream or connection, and that to `error`. Only the garbage collector ends such a circle.
    """
    error.__traceback__ = None
    return error.__copy__() if isinstance(error, P2PError) else error


done = _Done.__new__(_Done)
