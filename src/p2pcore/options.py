"""Checks the arguments of a host, and the fields of its option objects.

Each check takes the name and the value of one argument. If the value is wrong, it raises TypeError (wrong
type) or ValueError (out of range). The message has the name, the value and what is expected. It never shows
the value of a secret. Option classes call the checks in `__post_init__`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from inspect import iscoroutinefunction, isfunction, ismethod, signature, unwrap
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from p2pcore import limits

T = TypeVar("T")

_SHOWN_CHARS = 80  # at most, of a value in a message


def given(name: str, value: T | None, kind: type[T]) -> T:
    """`value`, or `kind()` if it is None. Raises TypeError: it is something else."""
    if value is None:
        return kind()
    instance(name, value, kind)
    return value


def flag(name: str, value: object) -> None:
    """Checks that `value` is True or False. 1, "" and the like are wrong."""
    if not isinstance(value, bool):
        _wrong_type(name, "True or False", value)


def seconds(
    name: str, value: object, *, or_zero: bool = False, most: float = limits.MAX_TIMEOUT_S, why: str = ""
) -> None:
    """Checks a time: finite, more than 0 (with `or_zero` at least 0), at most `most`. `why` explains 0."""
    if type(value) in (float, int) and 0 < value <= most:  # type: ignore[operator]
        return  # nearly always: the text below costs more than the checks
    least = f"from 0 ({why}) to" if why else "from 0 to" if or_zero else "more than 0 and at most"
    expected = f"a number of seconds {least} {most:.12g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong_type(name, expected, value)
    if not 0 <= value <= most or (value == 0 and not or_zero):  # NaN fails the first comparison
        raise ValueError(f"{name} must be {expected}, not {value!r}")


def number(name: str, value: object) -> None:
    """Checks that `value` is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong_type(name, "a number", value)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value!r}")


def whole(name: str, value: object, least: int = 0, most: int = limits.MAX_COUNT) -> None:
    """Checks that `value` is a whole number from `least` to `most`."""
    expected = f"a whole number from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int):
        _wrong_type(name, expected, value)
    if not least <= value <= most:
        raise ValueError(f"{name} must be {expected}, not {value!r}")


def rate(name: str, value: object) -> None:
    """Checks a number of events in a second: finite, more than 0, at most limits.MAX_COUNT."""
    expected = f"a number per second more than 0 and at most {limits.MAX_COUNT}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong_type(name, expected, value)
    if not 0 < value <= limits.MAX_COUNT:
        raise ValueError(f"{name} must be {expected}, not {value!r}")


def file_mode(name: str, value: object) -> None:
    """Checks the permissions of a file. 600 is wrong, because it is not 0o600."""
    expected = f"permissions such as 0o600, at most {limits.MAX_FILE_MODE:#o}"
    if isinstance(value, bool) or not isinstance(value, int):
        _wrong_type(name, expected, value)
    if not 0 <= value <= limits.MAX_FILE_MODE:
        raise ValueError(f"{name} must be {expected}, not {value!r}")


def text(name: str, value: object, max_chars: int) -> None:
    """Checks that `value` is a text of at most `max_chars` characters."""
    if not isinstance(value, str):
        _wrong_type(name, "a text", value)
    if len(value) > max_chars:
        raise ValueError(f"{name} must be a text of at most {max_chars} characters, not of {len(value)}")


def is_protocol_id(value: str, max_bytes: int) -> bool:
    """Whether `value` begins with "/", has no newline, and is at most `max_bytes` of UTF-8."""
    return value.startswith("/") and "\n" not in value and fits_utf8(value, max_bytes)


def fits_utf8(value: str, max_bytes: int) -> bool:
    """Whether `value` has a form in UTF-8, of at most `max_bytes`."""
    try:
        return len(value.encode()) <= max_bytes
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """Checks that `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {_shown(value)}")


def instance(name: str, value: object, *kinds: type, is_secret: bool = False) -> None:
    """Checks that `value` is an object of one of `kinds`. With `is_secret` the message shows no value."""
    if not isinstance(value, kinds):
        _wrong_type(name, " or ".join(_article(kind.__name__) for kind in kinds), value, is_secret)


def items(name: str, value: object, what: str, *kinds: type) -> None:
    """Checks that `value` is a list or tuple of `kinds`. A single text is wrong."""
    if not isinstance(value, list | tuple):
        _wrong_type(name, f"a list of {what}", value)
    for item in value:
        if not isinstance(item, kinds):
            expected = " or ".join(_article(kind.__name__) for kind in kinds)
            _wrong_type(f"each item of {name}", expected, item)


def listed(name: str, value: Iterable[Any], what: str, *kinds: type) -> list[Any]:
    """The items of `value`, any iterable of `kinds`. A single text, or a single one of `kinds`, is wrong."""
    is_listing = isinstance(value, Iterable) and not isinstance(value, (str, bytes, *kinds))
    given = list(value) if is_listing else value
    items(name, given, what, *kinds)
    return list(given)


@lru_cache(maxsize=limits.NETWORKS_KEPT)
def parsed_network(text: str, strict: bool = True) -> IPv4Network | IPv6Network:
    """The network in `text`, as `ipaddress.ip_network`, which is slow: each host has the same few.

    Raises: ValueError: it is none.
    """
    return ip_network(text, strict)


def network(name: str, value: object) -> None:
    """Checks that `value` is the text of an IP network or of an IP address."""
    expected = 'an IP network such as "10.0.0.0/8", or an IP address'
    if not isinstance(value, str):
        _wrong_type(name, expected, value)
    try:
        parsed_network(value)
    except ValueError as error:
        raise ValueError(f"{name} must be {expected}, not {_shown(value)}: {error}") from None


def function(name: str, value: object) -> None:
    """Checks that `value` can be called."""
    if not callable(value):
        _wrong_type(name, "a function", value)


def stream_handler(name: str, value: object) -> None:
    """Checks that `value` can be called with one stream, and gives something to await.

    A plain function may return an awaitable, and nobody can see that. So only one that says nothing about its
    result is refused: a `def` without a return annotation, or with None there.
    """
    function(name, value)
    expected = "an `async` function that takes one argument, the stream"
    try:
        signature(value).bind(None)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(f"{name} must be {expected}, not {_shown(value)}: {error}") from None
    except ValueError:  # a function of C, which does not tell its arguments
        return
    inner = unwrap(value)  # type: ignore[arg-type]
    is_plain = isfunction(inner) or ismethod(inner)
    says_nothing = getattr(inner, "__annotations__", {}).get("return") in (None, "None")
    if is_plain and says_nothing and not iscoroutinefunction(inner) and inner.__name__ != "<lambda>":
        raise TypeError(f"{name} must be {expected}, not the plain function {_shown(value)}")


def satisfies(name: str, value: object, interface: type, *, may_wait: bool = False) -> None:
    """An object with every attribute and method of `interface`, a typing.Protocol.

    A coroutine function in the place of a plain function is refused, because nobody would await it, unless
    `may_wait` says that somebody does.
    """
    expected = f"{_article(interface.__name__)} (p2pcore.interfaces)"
    if isinstance(value, type):
        raise TypeError(f"{name} must be {expected}, not the class {value.__name__} itself")
    missing = [each for each in _members(interface) if not _has(value, each, interface)]
    if missing:
        lacks = f"{_article(type(value).__name__)} without {', '.join(missing)}"
        raise TypeError(f"{name} must be {expected}, not {lacks}")
    for each in () if may_wait else _members(interface):
        if iscoroutinefunction(getattr(value, each)) and not iscoroutinefunction(
            getattr(interface, each, None)
        ):
            raise TypeError(f"{name}.{each} must be a plain function, not a coroutine function")


def _members(interface: type) -> list[str]:
    bases = [base for base in interface.__mro__ if base not in (Protocol, Generic, object)]
    return [name for base in bases for name in vars(base) if not name.startswith("_")]


def _has(value: object, name: str, interface: type) -> bool:
    if not hasattr(value, name):
        return False
    return callable(getattr(value, name)) or not callable(getattr(interface, name))


def _wrong_type(name: str, expected: str, value: object, is_secret: bool = False) -> NoReturn:
    shown = "" if is_secret or value is None else f" {_shown(value)}"
    kind = "None" if value is None else _article(type(value).__name__)
    raise TypeError(f"{name} must be {expected}, not {kind}{shown}")


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}..."


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeioAEIO' else 'a'} {noun}"
