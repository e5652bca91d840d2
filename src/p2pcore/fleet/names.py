"""Checks what is given to a bus: subjects, keys, names of buckets, messages and values.

Comes in: an argument and its name. Goes out: nothing, or an error that names the value and what was expected.
A subject and a key are words of A-Z, a-z, 0-9, "-" and "_", joined by dots.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

from p2pcore import options
from p2pcore.errors import LimitExceeded
from p2pcore.limits import BUS_MAX_MESSAGE_BYTES, BUS_MAX_NAME_CHARS, BUS_MAX_VALUE_BYTES, BUS_MIN_EXPIRY_S

_WORDS = re.compile(r"[\w-]+(?:\.[\w-]+)*", re.ASCII)
_SUBJECTS = re.compile(r"[\w-]+(?:\.[\w-]+)*(?:\.\*)?", re.ASCII)
_WORD = re.compile(r"[\w-]+", re.ASCII)

_LETTERS = 'A-Z, a-z, 0-9, "-" and "_"'


def subject(value: object) -> None:
    """Checks the subject of a message. Raises: TypeError; ValueError."""
    _check("subject", value, _WORDS, f"words of {_LETTERS}, joined by dots")


def subjects(value: object) -> None:
    """Checks what is subscribed to: a subject, whose last word may be "*". Raises: TypeError; ValueError."""
    _check("subject", value, _SUBJECTS, f'words of {_LETTERS}, joined by dots; the last may be "*"')


def key(value: object) -> None:
    """Checks the key of an entry. Raises: TypeError; ValueError."""
    _check("key", value, _WORDS, f"words of {_LETTERS}, joined by dots")


def word(name: str, value: object) -> None:
    """Checks the name of a bucket or of a fleet. Raises: TypeError; ValueError."""
    _check(name, value, _WORD, f"a word of {_LETTERS}")


def message(data: object) -> None:
    """Checks a message. Raises: TypeError; LimitExceeded."""
    _sized("data", data, "BUS_MAX_MESSAGE_BYTES", BUS_MAX_MESSAGE_BYTES)


def value(data: object) -> None:
    """Checks the value of an entry. Raises: TypeError; LimitExceeded."""
    _sized("a value", data, "BUS_MAX_VALUE_BYTES", BUS_MAX_VALUE_BYTES)


def entries(given: object) -> None:
    """Checks what is put into a bucket. Raises: TypeError; ValueError; LimitExceeded."""
    if not isinstance(given, Mapping):
        raise TypeError(f"entries must be a mapping of keys to bytes or None, not {type(given).__name__}")
    for each, data in given.items():
        if not (type(each) is str and len(each) <= BUS_MAX_NAME_CHARS and _WORDS.fullmatch(each)):
            key(each)
        if not (data is None or (type(data) is bytes and len(data) <= BUS_MAX_VALUE_BYTES)):
            value(data)


def swap(key_: object, expected: object, data: object) -> None:
    """Checks what is given to `Bucket.swap`. Raises: TypeError; ValueError; LimitExceeded."""
    key(key_)
    for each in (expected, data):
        if each is not None:
            value(each)


def expiry(expiry_s: object) -> None:
    """Checks the expiry of a bucket. Raises: TypeError; ValueError."""
    if expiry_s is None:
        return
    options.seconds("expiry_s", expiry_s)
    if expiry_s < BUS_MIN_EXPIRY_S:  # type: ignore[operator]
        raise ValueError(f"expiry_s must be at least {BUS_MIN_EXPIRY_S:g}, not {expiry_s!r}")


def _check(name: str, value: object, form: re.Pattern[str], expected: str) -> None:
    if isinstance(value, str) and len(value) <= BUS_MAX_NAME_CHARS and form.fullmatch(value):
        return
    _wrong(name, value, expected)


def _wrong(name: str, value: object, expected: str) -> NoReturn:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {expected}, not {type(value).__name__}")
    if len(value) > BUS_MAX_NAME_CHARS:
        shown = value[:40] + "..."
        raise ValueError(
            f"{name} must have at most {BUS_MAX_NAME_CHARS} characters, not {len(value)}: {shown!r}"
        )
    raise ValueError(f"{name} must be {expected}, not {value!r}")


def _sized(name: str, data: object, limit: str, maximum: int) -> None:
    if not isinstance(data, bytes):
        raise TypeError(f"{name} must be bytes, not {type(data).__name__}")
    if len(data) > maximum:
        raise LimitExceeded(limit, len(data), maximum)
