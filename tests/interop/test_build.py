"""interop/build.py: what is built lies outside the clone, once, as a whole; what cannot be built says why.

Comes in: the builder with toolchains taken away or replaced. Goes out: claims about peers, files and locks.
Never reaches a registry.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from types import ModuleType

import pytest
from driver import ROOT

from harness import seconds
from interop_builder import load_builder

pytestmark = pytest.mark.source


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The builder with an empty cache."""
    monkeypatch.setenv("P2PCORE_CACHE", str(tmp_path / "cache"))
    return load_builder()


@pytest.mark.parametrize("name", ["go", "js", "browser"])
def test_a_missing_toolchain_is_a_reason_not_an_error(
    builder: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    peer = builder.build(name)
    assert peer.command == ()
    assert "is not installed" in peer.reason


def stub(folder: Path, name: str, script: str) -> None:
    """A command of that name, for PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_an_unreachable_registry_is_a_reason(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path / "bin", "go", "echo unreachable >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert "unreachable" in builder.build("go").reason


def test_a_peer_that_does_not_compile_is_an_error(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path / "bin", "go", "[ $1 = mod ] || { echo syntax error >&2; exit 1; }")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(builder.BuildError, match="syntax error"):
        builder.build("go")
    assert not list(builder.cache_dir().glob("go-*"))
    assert not list(builder.cache_dir().glob(".go-*"))


def build_go(cache: str, path: str) -> str:
    """In a process of its own: where the go peer is."""
    os.environ.update(P2PCORE_CACHE=cache, PATH=path)
    command: tuple[str, ...] = load_builder().build("go").command
    return command[0]


def test_builders_at_the_same_time_build_once(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    stub(
        tmp_path / "bin",
        "go",
        f'[ $1 = mod ] && exit 0; echo built >> {log}; while [ "$1" != -o ]; do shift; done; echo > $2',
    )
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        jobs = [pool.apply_async(build_go, (os.environ["P2PCORE_CACHE"], path)) for _ in range(4)]
        places = {job.get(timeout=seconds(60)) for job in jobs}
    assert len(places) == 1
    assert log.read_text() == "built\n"


def test_nothing_is_built_inside_the_clone(builder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not builder.cache_dir().is_relative_to(ROOT)
    monkeypatch.delenv("P2PCORE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert builder.cache_dir() == Path("/somewhere/p2pcore/interop")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert builder.cache_dir() == Path.home() / ".cache" / "p2pcore" / "interop"


@pytest.mark.parametrize("lock", ["interop/js/package-lock.json", "interop/js/runtime/package-lock.json"])
def test_every_npm_package_is_pinned_by_digest_and_names_no_registry(lock: str) -> None:
    packages = json.loads((ROOT / lock).read_text())["packages"]
    del packages[""]
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
