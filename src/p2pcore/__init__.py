"""p2pcore: a libp2p networking core. The public names, and nothing else.

Importing it opens no socket, starts no event loop and reads no file.
"""

from __future__ import annotations

__version__ = "0.1.0"
