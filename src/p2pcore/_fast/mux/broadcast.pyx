"""The same bytes to many streams.

Comes in: streams of any connections of one loop, and bytes. Goes out: those streams that did not take them. What a few
streams have taken leaves before the next ones take it: so their connections share a few record buffers, and the first
peer does not wait for the last.
"""

from p2pcore import errors

from p2pcore._fast.mux.stream cimport Stream


def write_to_each(list streams not None, Py_ssize_t begin, Py_ssize_t end, data, list slow not None, list gone not None):
    """Gives `data` to streams[begin:end] by try_write(); appends to `slow` those where an earlier write waits, and to
    `gone` those that have ended.

    Raises: TypeError if `data` is no bytes-like object, or a stream is none.
    """
    cdef Py_ssize_t at
    cdef Stream stream = None
    for at in range(begin, min(end, len(streams))):
        stream = streams[at]
        try:
            if not stream.take_write(data):
                slow.append(stream)
        except errors.P2PError:
            gone.append(stream)
        stream.state.flusher.relieve()
    if stream is not None:
        stream.state.flusher.flush_now()
