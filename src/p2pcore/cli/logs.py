"""Where log lines of `p2pcore listen` go, and in which form.

Comes in: the options --log-format and --access-log. Goes out: handlers of the loggers "p2pcore" and
"p2pcore.access". Workers append to the same file: each line is one write.
"""

from __future__ import annotations

import logging
import sys

from p2pcore.cli.failure import CommandFailed

STANDARD_ERROR = "-"


def set_up_logs(log_format: str, access_log: str | None) -> None:
    """Call it after `log_level`. Raises CommandFailed: the file cannot be opened."""
    if log_format == "json":
        logger = logging.getLogger("p2pcore")
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            lines = logging.StreamHandler(sys.stderr)
            lines.setLevel(handler.level)
            lines.setFormatter(_json())
            logger.addHandler(lines)
    if access_log is not None:
        handler = _opened(access_log)
        handler.setFormatter(
            _json() if log_format == "json" else logging.Formatter("%(asctime)s %(message)s")
        )
        logger = logging.getLogger("p2pcore.access")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _json() -> logging.Formatter:
    from p2pcore.contrib.json_log import JsonFormatter

    return JsonFormatter()


def _opened(path: str) -> logging.Handler:
    if path == STANDARD_ERROR:
        return logging.StreamHandler(sys.stderr)
    try:
        return logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from error
