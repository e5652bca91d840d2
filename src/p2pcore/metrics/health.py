"""Whether a node lives, and whether new work should be sent to it.

Comes in: checks, each a function. Goes out: a Report, which is the body and the status of an HTTP answer. A
node is ready once it has started, while it does not drain and none of its listeners is down. Source: the
probes of Kubernetes, which ask both questions apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Check = Callable[[], str | None]
"""None: all is well. A text: what is wrong, in a few words. It must be quick."""


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to one question.

    Attributes:
        is_good: yes. status: "ready", "alive", or the name of the first check that has failed.
        since: seconds since 1970 from when on the status is this one.
        checks: what each says: "ok", or what is wrong.
    """

    is_good: bool
    status: str
    since: float
    checks: Mapping[str, str] = field(default_factory=dict)

    @property
    def http_status(self) -> int:
        """200 or 503."""
        return 200 if self.is_good else 503

    def body(self) -> bytes:
        """JSON."""
        import json  # here, because a node without probes does not need it

        shown: dict[str, Any] = {"status": self.status, "since": self.since, "checks": dict(self.checks)}
        return json.dumps(shown).encode() + b"\n"


class Health:
    """The checks of one node.

    Args:
        good: the status while no check fails.
        checks: by name; they are asked in this order. The first that fails gives the status its name.
    """

    def __init__(self, good: str, checks: Mapping[str, Check]) -> None:
        self._good = good
        self._checks = dict(checks)
        self._last: tuple[str, float] | None = None

    def add(self, name: str, check: Check) -> None:
        """One more check, asked after the others. One with the same name is replaced."""
        self._checks[name] = check

    def report(self) -> Report:
        """Asks every check. One that raises has failed."""
        results = {name: _asked(check) for name, check in self._checks.items()}
        failed = [name for name, result in results.items() if result is not None]
        status = failed[0] if failed else self._good
        if self._last is None or self._last[0] != status:
            self._last = (status, time.time())
        shown = {name: result or "ok" for name, result in results.items()}
        return Report(not failed, status, self._last[1], shown)


def _asked(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
