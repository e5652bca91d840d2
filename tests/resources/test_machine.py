"""What the process may use is read from the kernel's files, wherever the limit is set."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from p2pcore.limits import MAX_COUNT
from p2pcore.resources.machine import Machine

GIB = 1 << 30
RAM = {"proc/meminfo": f"MemFree: 1 kB\nMemTotal:       {16 * GIB // 1024} kB\nSwapTotal: 0 kB\n"}
V2 = RAM | {"proc/self/cgroup": "0::/a.slice/b.service\n"}
V1 = RAM | {"proc/self/cgroup": "12:cpu,cpuacct:/x\n4:memory:/docker/abc\n1:name=systemd:/x\n"}


def memory(root: Path, files: dict[str, str]) -> int:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine.read(str(root)).memory


@pytest.mark.parametrize(
    ("files", "gib"),
    [
        (RAM, 16),
        (V2, 16),
        (V2 | {"sys/fs/cgroup/a.slice/b.service/memory.max": f"{4 * GIB}\n"}, 4),
        (V2 | {"sys/fs/cgroup/a.slice/b.service/memory.max": "max\n"}, 16),
        (V2 | {"sys/fs/cgroup/a.slice/b.service/memory.high": f"{3 * GIB}\n"}, 3),
        (V2 | {"sys/fs/cgroup/a.slice/memory.max": f"{2 * GIB}\n"}, 2),
        (V2 | {"sys/fs/cgroup/memory.max": f"{5 * GIB}\n"}, 5),  # a container that sees the path of its host
        (V2 | {"sys/fs/cgroup/a.slice/b.service/memory.max": f"{64 * GIB}\n"}, 16),
        (V1 | {"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": f"{GIB}\n"}, 1),
        (V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 16),
        (V1 | {"sys/fs/cgroup/cpu,cpuacct/x/memory.limit_in_bytes": "1\n"}, 16),
    ],
)
def test_the_memory_is_the_least_of_ram_and_control_groups(
    files: dict[str, str], gib: int, tmp_path: Path
) -> None:
    assert memory(tmp_path, files) == gib * GIB


def test_without_any_file_the_ram_comes_from_the_system(tmp_path: Path) -> None:
    assert Machine.read(str(tmp_path)).memory > 1 << 20


def test_the_descriptors_are_the_soft_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert Machine.read().descriptors == 1024
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert Machine.read().descriptors == MAX_COUNT
