"""What surrounds the code: workflows and hooks run commands that exist; metadata and bounds are as declared.

Comes in: the source tree, and what is installed. Goes out: a failure that names what is not so.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from harness import seconds
from p2pcore._fast.crypto import openssl, sodium

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LIMIT_S = 60


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.source
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_each_step_of_a_workflow_is_an_action_or_a_target_of_make(path: Path) -> None:
    commands = [step["run"] for step in steps(path) if "uses" not in step]
    assert commands
    for command in commands:
        if "apt-get" not in command:
            assert command.split()[0] == "make"
            assert command.split()[1] in make_targets()
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])


@pytest.mark.source
def test_the_workflows_run_everything_on_every_python() -> None:
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert ci["jobs"]["tests"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    commands = {step["run"] for path in WORKFLOWS for step in steps(path) if "run" in step}
    wanted = "unit lint docs gates interop wheel-test sanitize lowest newest cibuildwheel sdist"
    assert {f"make {target}" for target in wanted.split()} <= commands
    bench = steps(ROOT / ".github" / "workflows" / "benchmarks.yml")
    kept = [step["with"]["path"].split() for step in bench if "upload-artifact" in step.get("uses", "")]
    assert kept == [["bench/results/sidebyside.json", "docs/benchmarks.md", "docs/benchmarks"]]
    assert all((ROOT / path).exists() for path in kept[0])


@pytest.mark.source
def test_hooks_run_programs_that_make_lint_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format", "cython-lint"]
    lint = (ROOT / "Makefile").read_text()
    for hook in hooks:
        program = re.search(r"ruff check|ruff format --check|cython-lint", hook["entry"])
        assert program is not None
        assert program[0] in lint


@pytest.mark.source
def test_help_lists_every_target_that_a_person_runs() -> None:
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in done.stdout.splitlines()} == make_targets() - {"FORCE"}


def test_the_metadata_say_where_the_project_is() -> None:
    metadata = importlib.metadata.metadata("p2pcore")
    urls = dict(each.split(", ", 1) for each in metadata.get_all("Project-URL") or [])
    assert set(urls) == {"Homepage", "Source", "Documentation", "Changelog", "Issues"}
    assert all(url.startswith("https://github.com/p2pcore/p2pcore") for url in urls.values())
    assert metadata["Author"] == "The p2pcore developers"


# -- bounds ------------------------------------------------------------------------------------


@pytest.mark.source
def test_every_dependency_names_its_lowest_version() -> None:
    command = [sys.executable, "tools/dependencies.py"]
    for option, operator in (("--lowest", "=="), ("--newest", ">=")):
        done = subprocess.run([*command, option], cwd=ROOT, capture_output=True, text=True, check=True)
        found = {Requirement(line).name: Requirement(line) for line in done.stdout.splitlines()}
        assert found.keys() >= {Requirement(line).name for line in project()["dependencies"]}
        assert {spec.operator for each in found.values() for spec in each.specifier} == {operator}


@pytest.mark.source
@pytest.mark.parametrize("module", [openssl, sodium], ids=["cryptography", "pynacl"])
def test_private_bindings_have_the_bounds_that_their_module_tells(module: Any) -> None:
    told = Requirement(module.WORKS_WITH)
    (declared,) = [
        each for line in project()["dependencies"] if (each := Requirement(line)).name == told.name
    ]
    assert told.specifier == declared.specifier
    assert {spec.operator for spec in SpecifierSet(str(told.specifier))} == {">=", "<"}


def what_import_says(module: str, preparation: str) -> str:
    code = (
        "import sys, types\n"
        f"{preparation}\n"
        f"try:\n    import p2pcore._fast.crypto.{module}\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=seconds(LIMIT_S), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("module", "preparation"),
    [
        ("openssl", "sys.modules['cryptography.hazmat.bindings._rust'] = types.ModuleType('_rust')"),
        (
            "openssl",
            "from cryptography.hazmat.bindings import _rust\n"
            "_rust._openssl = types.SimpleNamespace(ffi=_rust._openssl.ffi, lib=object())",
        ),
        ("sodium", "sys.modules['nacl._sodium'] = None"),
        (
            "sodium",
            "import nacl, _ctypes\n"
            "lib = types.SimpleNamespace(sodium_init=lambda: 0)\n"
            "nacl._sodium = types.SimpleNamespace(lib=lib, __file__=_ctypes.__file__)\n"
            "sys.modules['nacl._sodium'] = nacl._sodium",
        ),
    ],
)
def test_bindings_that_are_not_there_are_told_with_the_versions_that_work(
    module: str, preparation: str
) -> None:
    works_with = {"openssl": openssl, "sodium": sodium}[module].WORKS_WITH
    assert f"works with {works_with}\n" in what_import_says(module, preparation)


# -- scripts -----------------------------------------------------------------------------------


@pytest.mark.source
def test_ci_says_what_it_would_install_and_can_be_kept_from_it(tmp_path: Path) -> None:
    script = (ROOT / ".ci" / "run").read_text()
    head, found, _ = script.partition('section "make test"')  # no more: what follows runs everything
    assert found
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_text(head)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("dirname", "bash"):
        (tools / name).symlink_to(shutil.which(name) or name)
    (tools / "id").write_text("#!/bin/sh\necho 0\n")
    (tools / "apt-get").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/installed\n')
    for name in ("id", "apt-get"):
        (tools / name).chmod(0o755)

    def said(**environment: str) -> list[str]:
        done = subprocess.run(
            ["bash", str(tmp_path / ".ci" / "run")],
            env={"PATH": str(tools), **environment},
            capture_output=True,
            text=True,
            timeout=seconds(LIMIT_S),
            check=True,
        )
        return done.stdout.splitlines()

    assert [line.partition(": ")[0] for line in said(P2PCORE_NO_APT="1")] == [
        "valgrind is not there, and is not installed",
        "clang is not there, and is not installed",
        "chromium is not there, and is not installed",
        "promtool is not there, and is not installed",
    ]
    assert not (tmp_path / "installed").exists()
    lines = said()
    assert [line.partition(": ")[0] for line in lines] == [
        "apt-get installs valgrind on this system",
        "apt-get installs clang on this system",
        "apt-get installs chromium on this system",
        "apt-get installs promtool on this system",
    ]
    assert all("P2PCORE_NO_APT=1" in line for line in lines)
    assert "install -y -qq valgrind" in (tmp_path / "installed").read_text()


@pytest.mark.source
def test_make_builds_again_what_changed_whatever_its_date(tmp_path: Path) -> None:
    for name in ("Makefile", "CMakeLists.txt", "src/p2pcore/_fast/CMakeLists.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    source = tmp_path / "src" / "p2pcore" / "_fast" / "codec" / "one.pyx"
    source.parent.mkdir()
    source.write_text("new")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    (tmp_path / "tools").mkdir()
    for name in ("pyproject.toml", "tools/dependencies.py", ".venv/.tools"):  # the tools are there already
        (tmp_path / name).touch()

    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    def builds() -> bool:  # as from a shell, also where `make unit` runs this
        done = subprocess.run(
            ["make", ".venv/.built"], cwd=tmp_path, env=own, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() in ("", "make: '.venv/.built' is up to date.")
        return "building the compiled modules" in done.stderr

    assert [builds(), builds()] == [True, False]
    source.write_text("old")
    os.utime(source, (1_000_000_000, 1_000_000_000))
    assert [builds(), builds()] == [True, False]
    assert source.stat().st_mtime > 1_000_000_000, "ninja too takes it for newer than what it made of it"
