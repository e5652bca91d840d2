"""Errors of accept(2): which leave the socket usable, and how long to pause."""

from __future__ import annotations

import errno

import pytest

from p2pcore.manet.accept_errors import Backoff, is_temporary


@pytest.mark.parametrize(
    "name",
    [
        "EMFILE",
        "ENFILE",
        "ENOBUFS",
        "ENOMEM",
        "ECONNABORTED",
        "ECONNRESET",
        "EPROTO",
        "EPERM",
        "EINTR",
        "ENETDOWN",
        "ENETUNREACH",
        "EHOSTUNREACH",
        "ENOPROTOOPT",
        "EOPNOTSUPP",
        "ETIMEDOUT",
    ],
)
def test_shortages_and_lost_connections_are_temporary(name: str) -> None:
    assert is_temporary(OSError(getattr(errno, name), "as accept(2) reports it"))


@pytest.mark.parametrize("name", ["EBADF", "EINVAL", "ENOTSOCK", "EFAULT"])
def test_a_lost_socket_is_not_temporary(name: str) -> None:
    assert not is_temporary(OSError(getattr(errno, name), "as accept(2) reports it"))


def test_an_error_without_errno_is_not_temporary() -> None:
    assert not is_temporary(OSError("no number"))


def test_pauses_double_up_to_the_maximum_and_start_over_after_a_success() -> None:
    backoff = Backoff(0.001, 1.0)
    pauses = [backoff.next() for _ in range(12)]
    assert pauses[:4] == [0.001, 0.002, 0.004, 0.008]
    assert pauses[-2:] == [1.0, 1.0]
    assert max(pauses) == 1.0
    backoff.reset()
    assert backoff.next() == 0.001


@pytest.mark.parametrize(("minimum", "maximum"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_bounds_in_the_wrong_order_are_refused(minimum: float, maximum: float) -> None:
    with pytest.raises(ValueError):
        Backoff(minimum, maximum)
