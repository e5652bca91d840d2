"""Prints the results of a command: lines for people, or one JSON object on each line for machines.

Comes in: lines, fields. Goes out: standard output, flushed after each line; errors and warnings on standard
error, one line each. Never prints a control character, because a peer may have written the text.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from p2pcore.cli.lines import Lines

_STDOUT = 1
_STDERR = 2


class OutputFailed(Exception):
    """Standard output cannot be written. The cause says why."""


_background: dict[int, Lines] = {}
"""The writers of standard output and standard error, once `never_wait` was called."""


class Output:
    """Prints the results of a command.

    Attributes:
        is_json: True: print JSON for machines. False: print lines for people.
    """

    def __init__(self, is_json: bool) -> None:
        self.is_json = is_json

    def show(self, lines: str | Sequence[str], /, **fields: Any) -> None:
        """Prints `lines`, or `fields` as one JSON object. Raises OutputFailed, but not after `never_wait`."""
        if self.is_json:
            text = json.dumps(fields)
        else:
            text = "\n".join(map(clean, [lines] if isinstance(lines, str) else lines))
        if _STDOUT in _background:
            _background[_STDOUT].put(text)
            return
        try:
            print(text, flush=True)
        except OSError as error:
            raise OutputFailed from error

    def never_wait(self, failed: Callable[[OutputFailed], object]) -> None:
        """From now on neither `show` nor an error line waits for a reader. What nobody reads is dropped.

        Args:
            failed: the event loop calls it once if standard output cannot be written.
        """
        from asyncio import get_running_loop  # here, so that `--help` stays quick

        loop = get_running_loop()

        def told(error: OSError) -> None:
            failure = OutputFailed()
            failure.__cause__ = error
            with suppress(RuntimeError):  # the loop is closed: the command has ended
                loop.call_soon_threadsafe(failed, failure)

        _background[_STDOUT] = Lines(_STDOUT, self._lost, told)
        errors_never_wait()

    def _lost(self, count: int) -> str:
        return json.dumps({"event": "lines_dropped", "count": count}) if self.is_json else _lost(count)


def errors_never_wait() -> None:
    """From now on an error line never waits for a reader."""
    atexit.register(finish)
    _background[_STDERR] = Lines(_STDERR, _lost, lambda error: None)


def finish() -> None:
    """Waits a short time until all lines are written. Call it at the end of the process."""
    for lines in _background.values():
        lines.flush()


def _lost(count: int) -> str:
    return f"p2pcore: {count} lines were dropped here, because nobody read them"


def clean(text: str) -> str:
    """`text` with an escape in the place of each character that is not printable."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """One line for each (name, value), with all values in one column."""
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {value}".rstrip() for name, value in rows]


def error_line(text: str) -> None:
    """Prints one line on standard error, if that is open."""
    line = clean(" ".join(text.split()))
    if _STDERR in _background:
        _background[_STDERR].put(line)
        return
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def forgive_output() -> None:
    """Drops what is buffered for a broken standard output, so that the exit does not fail too."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    except OSError:
        pass


class _OneLine(logging.Handler):
    """Prints log records on standard error, one line each. Of a traceback it prints only the last line."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += f": {type(error).__name__}: {error}"
        error_line(f"p2pcore: {record.levelname.lower()}: {text}")


def prepare() -> None:
    """Call this once, before anything is printed. Then warnings print as lines, and any text can be printed.

    It also opens closed standard descriptors again. Otherwise a socket could get one of their numbers, and
    libuv would abort.
    """
    _reopen_closed()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    logger = logging.getLogger("p2pcore")
    logger.addHandler(_OneLine(logging.WARNING))
    logger.propagate = False


def _reopen_closed() -> None:
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def log_level(verbosity: int) -> None:
    """Sets the log level: -vv shows info, -vvv shows debug. Failed handshakes are logged at debug."""
    level = {0: logging.WARNING, 1: logging.WARNING, 2: logging.INFO}.get(verbosity, logging.DEBUG)
    logger = logging.getLogger("p2pcore")
    logger.setLevel(level)
    for handler in logger.handlers:
        handler.setLevel(level)
