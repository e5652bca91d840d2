"""`python -m p2pcore.workers FD`: a worker process. Only its supervisor starts it."""

from __future__ import annotations

import sys

from p2pcore.workers.worker import main

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
