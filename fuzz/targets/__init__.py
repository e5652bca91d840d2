"""The fuzz targets by name. A target is a function of one input; what it raises is a finding."""

from __future__ import annotations

from collections.abc import Callable

from targets import calls, muxers, negotiation, pair, security, values, web

TARGETS: dict[str, Callable[[bytes], None]] = {
    **values.TARGETS,
    **negotiation.TARGETS,
    **web.TARGETS,
    **security.TARGETS,
    **muxers.TARGETS,
    **pair.TARGETS,
    **calls.TARGETS,
}
