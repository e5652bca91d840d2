"""The version of p2pcore. The build reads it, `p2pcore.__version__` shows it, identify tells it to peers."""

from __future__ import annotations

__version__ = "0.1.0"
