"""`python -m p2pcore.cli`: the command p2pcore, if its script is not on the path."""

from __future__ import annotations

import sys

from p2pcore.cli import main

sys.exit(main())
