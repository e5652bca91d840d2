"""The committed baseline: figures, and the environment in which they were measured.

Comes in: figures. Goes out: baseline.json, and what was in it. Only `make gates-baseline` writes it.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gates.verdict import Figure

PATH = Path(__file__).parent / "baseline.json"
PACKAGES = ("cryptography", "pynacl", "uvloop", "protobuf", "cython")


@dataclass(frozen=True, slots=True)
class Baseline:
    """The contents of baseline.json; empty if there is none."""

    environment: dict[str, str]
    values: dict[str, float]


def load(path: Path = PATH) -> Baseline:
    """The baseline at `path`."""
    if not path.exists():
        return Baseline({}, {})
    read = json.loads(path.read_text())
    values = {name: row["value"] for name, row in read["rows"].items()}
    return Baseline(read["environment"], values)


def write(figures: Iterable[Figure], environment: dict[str, str], path: Path = PATH) -> None:
    """Replaces the baseline by `figures`."""
    rows = {
        each.name: {"value": round(each.value, 2), "unit": each.unit} for each in figures if each.most is None
    }
    path.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n")


def environment() -> dict[str, str]:
    """What the figures depend on besides the source; verdict.py says which parts must be the same."""
    found = {
        "python": f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}",
        "arch": platform.machine(),
        "system": platform.system(),
        "optimization": _optimization(),
        "simd": _simd(),
        "python_build": f"{platform.python_version()} {platform.python_compiler()}",
        "libc": " ".join(platform.libc_ver()),
        "valgrind": _valgrind(),
    }
    return found | {name: _version(name) for name in PACKAGES}


def _optimization() -> str:
    """How the interpreter was built, where that changes the number of instructions."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    found = [
        name for name in ("enable-optimizations", "with-lto", "with-pydebug") if f"--{name}" in arguments
    ]
    return " ".join(found) or "plain"


def _simd() -> str:
    """The features of the real processor that valgrind's has too: everything up to AVX2, and never more."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return "unknown"
    return "avx2" if "avx2" in flags else "avx" if "avx" in flags else "none"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _valgrind() -> str:
    try:
        done = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "none"
    return done.stdout.strip().removeprefix("valgrind-")
