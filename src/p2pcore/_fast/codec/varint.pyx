"""Unsigned LEB128 varints as all of libp2p uses them, for Python callers.

Comes in: bytes that may be cut anywhere, or an integer of 0..2**63-1. Goes out: (value, next
offset), None while bytes are missing, or the shortest encoding. Never reads more than nine
bytes. Source: multiformats unsigned-varint.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint64_t

from p2pcore.errors import RemoteProtocolError

cdef uint64_t _TOP = <uint64_t>1 << 63


def encode(value):
    """The shortest encoding of `value`.

    Args:
        value: 0..2**63-1.

    Returns:
        bytes, 1..9.

    Raises:
        ValueError: `value` is out of range.
    """
    cdef uint8_t out[10]
    if not 0 <= value < _TOP:
        raise ValueError(f"varint {value}: 0..2**63-1 expected")
    cdef int n = varint_write(out, value)
    return out[:n]


def decode(data, Py_ssize_t offset=0):
    """Reads one varint.

    Args:
        data: bytes-like; what follows the varint is ignored.
        offset: where it starts, 0..len(data).

    Returns:
        (value, offset of the byte after it), or None if `data` ends inside the varint.

    Raises:
        RemoteProtocolError: longer than nine bytes, or not the shortest form.
        ValueError: `offset` is outside `data`.
    """
    cdef Py_buffer view
    cdef uint64_t value = 0
    cdef int used
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if not 0 <= offset <= view.len:
            raise ValueError(f"offset {offset}: 0..{view.len} expected")
        used = varint_read(<const uint8_t *>view.buf + offset, <size_t>(view.len - offset), &value)
    finally:
        PyBuffer_Release(&view)
    if used == VARINT_MORE:
        return None
    if used < 0:
        raise RemoteProtocolError("varint over nine bytes" if used == VARINT_OVERFLOW else "padded varint")
    return value, offset + used
