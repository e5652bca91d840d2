"""Runs one target under atheris; run.py starts it with the sanitizer's library in front.

Comes in: the target's name, then options of libFuzzer. Goes out: libFuzzer's report on stderr; an input that
breaks a promise is written where -artifact_prefix says.
"""

from __future__ import annotations

import logging
import sys
import warnings

import atheris

# Parsers in Python. Those in C count by themselves; everything else would only make each start slow.
PARSERS = ["values", "protocols", "relay", "upgrade", "security", "transports"]

with atheris.instrument_imports(
    include=[f"p2pcore.{each}" for each in PARSERS], enable_loader_override=False
):
    from targets import TARGETS


def main() -> None:
    """Fuzzes until libFuzzer stops."""
    logging.getLogger("p2pcore").addHandler(logging.NullHandler())
    logging.getLogger("p2pcore").propagate = False
    warnings.simplefilter("ignore", ResourceWarning)
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


main()
