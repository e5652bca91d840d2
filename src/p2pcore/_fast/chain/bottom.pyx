"""What every bottom of a chain has in common: how it ends, in good order or at once, and never inside feed().

Comes in: shut() and drop() of the chain, what feeding raised. Goes out: finish(), which a subclass
fills in. Never forgets the first reason to end; never closes while it feeds.
"""

import logging

from p2pcore import errors

from p2pcore._fast.chain.layer cimport Layer, Mailbox

logger = logging.getLogger("p2pcore.wire")


cdef class Bottom(Layer):
    """Where a chain begins: a socket, a stream of another connection, the other end of a pair in memory."""

    @property
    def mailbox(self):
        """The Mailbox on top of the chain; None once another layer has replaced it."""
        cdef Layer top = self
        while top.above is not None:
            top = top.above
        return top if isinstance(top, Mailbox) else None

    def open_mailbox(self):
        """As `mailbox`, where there must be one. Raises ConnectionClosed: it has been replaced, or is gone."""
        mailbox = self.mailbox
        if mailbox is None:
            raise errors.ConnectionClosed("the connection is closed, or has been upgraded")
        return mailbox

    def abort(self):
        """Closes at once, unsent bytes are dropped. Idempotent."""
        self.fail(errors.ConnectionClosed("the connection was aborted here"))

    cdef int shut(self) except -1:
        if self.shutting or self.is_closed:
            return 0
        self.shutting = True
        if not self.feeding:
            self.finish()
        return 0

    cdef int drop(self, object error) except -1:
        return self.fail(error)

    cdef int fail(self, object error) except -1:
        """Ends the connection at once, with this reason unless there is an earlier one."""
        if self.error is None:
            self.error = error
        if not self.feeding:
            self.finish()
        return 0

    cdef int refuse(self, object error) except -1:
        """Ends the connection for what feeding raised; anything but a typed error is a bug of ours."""
        if not isinstance(error, errors.P2PError):
            logger.error("feeding a connection failed", exc_info=error)
        return self.fail(error)

    cdef int finish(self) except -1:
        """Does what was put off while feeding: closes, or ends our half as soon as nothing is queued."""
        raise NotImplementedError
