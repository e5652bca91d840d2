"""Makes `harness` importable everywhere in the suite, and switches off hypothesis's checks of time.

hypothesis measures how long it takes to make and to run an example. On a busy machine both fail without a
fault.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background so, and programs that tests start would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("p2pcore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("p2pcore")

sys.path.insert(0, str(Path(__file__).parent))
