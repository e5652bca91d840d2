"""What this process may use of its machine: memory and descriptors.

Comes in: the files of the kernel, below `root`. Goes out: a Machine. A file that is missing or unreadable
sets no limit. Never raises, and keeps nothing: each call reads again.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass

from p2pcore.limits import MAX_COUNT, MAX_SIZE_BYTES

_V2_FILES = ("memory.max", "memory.high")  # above `high` the kernel slows the process down
_V1_FILES = ("memory.limit_in_bytes",)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the process may use.

    Attributes:
        memory: bytes: the least of the RAM and the limits of its control groups.
        descriptors: the soft limit of open files (RLIMIT_NOFILE).
    """

    memory: int
    descriptors: int

    @classmethod
    def read(cls, root: str = "/") -> Machine:
        """As it is now."""
        return cls(min([_ram(root), *_of_groups(root)]), _descriptors())


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_COUNT if soft == resource.RLIM_INFINITY else min(soft, MAX_COUNT)


def _ram(root: str) -> int:
    for line in _text(root, "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return MAX_SIZE_BYTES


def _of_groups(root: str) -> Iterator[int]:
    """The limits of the control groups of this process. A parent's limit holds for its children too."""
    for line in _text(root, "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits(os.path.join(root, "sys/fs/cgroup"), path, _V2_FILES)
        elif "memory" in controllers.split(","):
            yield from _limits(os.path.join(root, "sys/fs/cgroup/memory"), path, _V1_FILES)


def _limits(mount: str, path: str, names: tuple[str, ...]) -> Iterator[int]:
    """The numbers in the files `names` of `path` and all its parents, up to `mount`.

    A container may see the path of its host, which does not exist there; its own group is then the mount.
    """
    steps = [step for step in path.split("/") if step]
    for depth in range(len(steps), -1, -1):
        for name in names:
            text = _text(mount, *steps[:depth], name).strip()
            if text.isdecimal():  # else "max"
                yield int(text)


def _text(*path: str) -> str:
    try:
        with open(os.path.join(*path)) as file:
            return file.read()
    except (OSError, ValueError):
        return ""
