"""What a running node tells its operator, over a UNIX socket of the same machine.

Comes in: a Host or a Supervisor, and a path. Goes out: its status in JSON, to whoever may open the file (mode
0600). Level 6: only programs and the command line import it. See docs/deployment.md.
"""

from __future__ import annotations

from p2pcore.admin.client import AdminClient
from p2pcore.admin.server import AdminServer
from p2pcore.admin.status import describe

__all__ = ["AdminClient", "AdminServer", "describe"]
