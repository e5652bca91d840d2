"""The results of a run: all samples, and the medians and ratios computed from them.

Comes in: figures of works.py, facts about the machine. Goes out: one JSON file, and the values of rows.
Never names the machine, its user or a path on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import statistics
import subprocess
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from peers import ROOT, Cores
from quiet import OTHERS, QUIET_CORES
from rows import LIMIT, OURS, Row, Target

Figures = dict[str, float]

TITLES = {
    OURS: "p2pcore",
    "go": "go-libp2p",
    "js": "js-libp2p",
    "rust": "rust-libp2p",
    "multiaddr": "multiaddr",
    "websockets": "websockets",
    LIMIT: "the limit",
}
"""The names of contenders in print; a peer given by hand keeps its own name."""


@dataclass
class Results:
    """One run of the suite.

    Attributes:
        samples: figures by work and contender, one for each round.
        failures: what went wrong, in the words of the peer.
        absent: by work and contender, why nothing can be measured.
    """

    when: str
    rounds: int
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]
    samples: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)
    absent: dict[str, dict[str, str]] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)

    def add(self, work: str, contender: str, figures: Figures) -> None:
        """One sample."""
        self.samples.setdefault(work, {}).setdefault(contender, []).append(figures)

    def values(self, row: Row, contender: str) -> list[float]:
        """The figure of this row, one for each round, in the unit of the row."""
        samples = self.samples.get(row.work, {}).get(contender, [])
        return [figures[row.figure] * row.scale for figures in samples]

    def median(self, row: Row, contender: str) -> float | None:
        """The median over the rounds; None if there is no sample."""
        values = self.values(row, contender)
        return statistics.median(values) if values else None

    def ratio(self, row: Row, contender: str = OURS, of: str | None = None) -> float | None:
        """The median divided by that of `of` (None: the baseline); None if one is missing, or that is 0."""
        other = of or row.baseline
        if other is None:
            return None
        ours, theirs = self.median(row, contender), self.median(row, other)
        return None if ours is None or not theirs else ours / theirs

    def meets(self, row: Row, target: Target) -> bool | None:
        """Whether we reach a target of the row; None if there is nothing to compare."""
        value, ratio = self.median(row, OURS), self.ratio(row, of=target.of)
        if value is None or (target.of_ratio and ratio is None):
            return None
        return target.is_met(value, ratio)

    def share(self, row: Row, contender: str) -> float | None:
        """The part of what the limit does that a contender does: 1 is the limit; None without either."""
        ratio = self.ratio(row, contender, LIMIT)
        if not ratio:
            return None
        return ratio if row.higher else 1 / ratio

    def ratio_range(self, row: Row) -> tuple[float, float] | None:
        """The least and the greatest ratio of a single round."""
        if row.baseline is None:
            return None
        both = zip(self.values(row, OURS), self.values(row, row.baseline), strict=False)
        ratios = [ours / theirs for ours, theirs in both if theirs]
        return (min(ratios), max(ratios)) if ratios else None

    def spread(self, row: Row, contender: str) -> float | None:
        """How far the samples lie apart, as a part of their median; None without two samples."""
        values, median = self.values(row, contender), self.median(row, contender)
        return (max(values) - min(values)) / median if median and len(values) > 1 else None

    def others(self, work: str) -> float | None:
        """The most cores that other work took during a sample of this work; None if nobody knows."""
        samples = [each for found in self.samples.get(work, {}).values() for each in found]
        return max((each[OTHERS] for each in samples if OTHERS in each), default=None)

    def is_quiet(self, work: str) -> bool:
        """Whether the machine did nothing else during all samples of this work."""
        others = self.others(work)
        return others is not None and others <= QUIET_CORES

    def contenders(self) -> list[str]:
        """The contenders with a sample, in the order of TITLES, then by name."""
        found = {name for samples in self.samples.values() for name in samples}
        known = [name for name in TITLES if name in found]
        return known + sorted(found - set(known))

    def save(self, path: Path) -> None:
        """Writes the whole file or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads what `save` wrote."""
        return cls(**json.loads(path.read_text()))


def title(contender: str) -> str:
    """The name of a contender in print."""
    return TITLES.get(contender, contender)


def without_paths(text: str) -> str:
    """`text` without this machine's folders and its name; multiaddrs stay."""
    for place, name in ((str(ROOT), "."), (str(Path.home()), "~"), (platform.node(), "localhost")):
        if len(place) > 1:
            text = text.replace(place, name)
    return re.sub(r"/(?:tmp|home|root|usr|opt|var|work)(?:/[^\s'\",:]+)+", "…", text)


def commit() -> str:
    """The measured commit, with a + if the tree differs from it."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "src", "interop", "bench/*.py", "bench/limit"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "unknown"


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "unknown"
    return f"{total / 2**30:.0f} GiB"


def machine(cores: Cores) -> dict[str, str]:
    """What a reader needs to judge the figures; nothing that identifies the machine's owner."""
    pinned = "not pinned" if cores.listener is None else f"cores {cores.listener} and {cores.dialer}"
    return {
        "processor": f"{_cpu_model()} ({platform.machine()}), {os.cpu_count()} logical cores",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "listener and dialer": pinned,
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }


def _found(pattern: str, path: str) -> str | None:
    """What `pattern` finds in a file of interop/; None if there is no such file or nothing in it."""
    try:
        found = re.search(pattern, (ROOT / "interop" / path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None


def versions() -> dict[str, str]:
    """Versions of the contenders, and of the libraries that p2pcore uses."""
    found: dict[str, str | None] = {
        "p2pcore": metadata.version("p2pcore"),
        "go-libp2p": _found(r"go-libp2p v(\S+)", "go/go.mod"),
        "js-libp2p": _found(r'"libp2p": "([^"]+)"', "js/package.json"),
        "rust-libp2p": _found(r'name = "libp2p"\nversion = "([^"]+)"', "rust/Cargo.lock"),
        "CPython": platform.python_version(),
    }
    for name in ("uvloop", "cryptography", "PyNaCl", "multiaddr", "websockets"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {name: version for name, version in found.items() if version}
