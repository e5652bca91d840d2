"""Makes `harness` importable from every folder of the suite, and lets no busy machine fail an example.

hypothesis measures how long an example takes and how long it takes to make one: both tell how busy the
machine is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

settings.register_profile("p2pcore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("p2pcore")

sys.path.insert(0, str(Path(__file__).parent))
