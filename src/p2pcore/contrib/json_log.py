"""Log records as JSON, one object on each line.

Comes in: records of `logging`. Goes out: text. What a record has in `extra` becomes a field of its own. Uses
orjson if it is installed. Never raises: what JSON does not have is shown as text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""The attributes that every record has."""


def _by_json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, default=str, ensure_ascii=False)


def _encoder() -> Callable[[dict[str, Any]], str]:
    try:
        import orjson
    except ImportError:
        return _by_json

    def by_orjson(fields: dict[str, Any]) -> str:
        try:
            return str(orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS), "utf-8")
        except TypeError:  # text that is not UTF-8, a number over 64 bits
            return _by_json(fields)

    return by_orjson


class JsonFormatter(logging.Formatter):
    """A formatter for any handler: `handler.setFormatter(JsonFormatter())`.

    Each object has `time` (ISO 8601, UTC), `level`, `logger`, `message`, what is in `extra`, and `error` with
    the traceback if there is one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._encode = _encoder()

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, without its newline."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return self._encode(fields)
