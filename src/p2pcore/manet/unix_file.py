"""The file of a listening UNIX socket: made, replaced if it is stale, removed.

Comes in: paths. Goes out: listening sockets. It replaces a socket that nobody listens on, but never one in
use, and never another file. It removes a file only if that is still its own. See unix(7).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from p2pcore.limits import LISTEN_BACKLOG


def open_unix(path: str, mode: int | None = None, backlog: int = LISTEN_BACKLOG) -> socket.socket:
    """A socket that listens on `path`; replaces a socket file that nobody listens on.

    Raises:
        BlockingIOError: another process is binding in this directory: try again.
        OSError: as UnixListener.listen.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with _alone_in(os.path.dirname(path)):
            _bind(sock, path)
            if mode is not None:
                os.chmod(path, mode)  # nobody can connect before listen(2)
            sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """Lets one process at a time bind here: two could take each other's new socket for a stale one."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _bind(sock: socket.socket, path: str) -> None:
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        _remove_stale(path)
        sock.bind(path)


def _remove_stale(path: str) -> None:
    """Removes the socket `path` if nobody listens on it. Raises OSError: it is in use, or not a socket."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "the file exists and is not a socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, "somebody listens there", path)
    os.unlink(path)


def file_of(path: str) -> tuple[int, int] | None:
    """Device and inode of `path`; None if it does not exist."""
    with suppress(OSError):
        status = os.lstat(path)
        return (status.st_dev, status.st_ino)
    return None


def remove_unix(path: str, file: tuple[int, int] | None) -> None:
    """Removes `path` if it is still `file` (device and inode)."""
    if file is not None and file_of(path) == file:
        with suppress(OSError):
            os.unlink(path)
