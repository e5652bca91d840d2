"""interop/build.py as a module; it is a script beside the peers, not part of any package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

PATH = Path(__file__).resolve().parent.parent / "interop" / "build.py"


def load_builder() -> ModuleType:
    """Runs it anew, and returns it."""
    spec = importlib.util.spec_from_file_location("interop_build", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
