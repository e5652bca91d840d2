"""The limit: what this machine can do at all, as a contender of the suite. See limit.h.

Comes in: the sources beside this file, a C compiler, nm. Goes out: the command of a peer. Built once, into
the cache of interop/build.py; never shipped.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from peers import load_builder

NAME = "limit"
HERE = Path(__file__).resolve().parent
FLAGS = ("-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
LIBRARIES = ("-ldl",)
TOOLS = ("cc", "nm")


def build() -> tuple[tuple[str, ...], str]:
    """The command of the peer, or nothing and the reason why this machine cannot build it."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return (), f"{missing[0]} is not installed"
    sources = sorted(HERE.glob("*.[ch]"))
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sources:
        digest.update(path.read_bytes())
    library = load_builder().cache_dir() / f"{NAME}-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        reason = _compile([str(path) for path in sources if path.suffix == ".c"], library)
        if reason:
            return (), reason
    return (sys.executable, str(HERE / "run.py"), str(library)), ""


def _compile(sources: list[str], library: Path) -> str:
    """Makes `library`, whole or not at all. Returns: why it could not, or nothing."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=f".{NAME}-") as scratch:
        made = Path(scratch) / library.name
        command = ["cc", *FLAGS, "-o", str(made), *sources, *LIBRARIES]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return " / ".join(done.stderr.strip().splitlines()[:2])
        made.rename(library)
    return ""
