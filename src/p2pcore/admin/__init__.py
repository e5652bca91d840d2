"""What a running node tells its operator: its status on a UNIX socket, and reports to systemd.

Comes in: a Host or a Supervisor. Goes out: its status in JSON, to whoever may open the socket (mode 0600),
and datagrams to systemd. Level 6: only programs and the command line import it. See docs/deployment.md.
"""

from __future__ import annotations

from p2pcore.admin.client import AdminClient
from p2pcore.admin.server import AdminServer
from p2pcore.admin.status import describe
from p2pcore.admin.systemd import Systemd

__all__ = ["AdminClient", "AdminServer", "Systemd", "describe"]
