"""What `pip install p2pcore` brings; what a missing extra says; the bill of materials; the published wheels.

Comes in: pyproject.toml, the source. Goes out: a failure that names what is not so. tools/lean_check.py looks
at a real environment.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from harness import HANG_S, seconds

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src" / "p2pcore"

MODULES = {
    "cryptography": "cryptography",
    "h11": "h11",
    "protobuf": "google",
    "pynacl": "nacl",
    "pyopenssl": "OpenSSL",
    "uvloop": "uvloop",
}
"""What p2pcore needs always, and the module of each."""

ELSEWHERE = {
    "click": "cli/",
    "rich": "cli/",
    "dns": "dialing/dns.py",
    "nats": "fleet/nats_",
    "multiaddr": "values/multiaddr.py",
    "pytest": "testing/plugin.py",
    "PyInstaller": "_pyinstaller/",
    "opentelemetry": "contrib/otel",
    "orjson": "contrib/json_log.py",
    "prometheus_client": "contrib/prometheus.py",
}
"""Other modules, and the only place that may import each."""


def configuration() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def imported(path: Path) -> set[str]:
    """The top modules that a file imports, inside functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"p2pcore"}


@pytest.mark.source
def test_p2pcore_needs_these_packages_and_no_more() -> None:
    project = configuration()["project"]
    assert {Requirement(each).name for each in project["dependencies"]} == set(MODULES)
    extras = project["optional-dependencies"]
    names = {extra: [Requirement(each).name for each in needed] for extra, needed in extras.items()}
    assert names == {
        "cli": ["click", "rich"],
        "fleet": ["nats-py", "nkeys"],
        "dns": ["dnspython"],
        "multiaddr": ["multiaddr"],
        "all": ["p2pcore"],
    }
    assert Requirement(extras["all"][0]).extras == set(extras) - {"all"}


@pytest.mark.source
def test_what_an_extra_brings_is_imported_in_its_place_only() -> None:
    used = set()
    for path in SOURCE.rglob("*.py"):
        for name in imported(path) - set(MODULES.values()):
            place = ELSEWHERE.get(name, "nowhere")
            assert str(path.relative_to(SOURCE)).startswith(place), f"{path} imports {name}"
            used.add(name)
    assert used == set(ELSEWHERE)


@pytest.mark.parametrize("missing", ["click", "rich"])
@pytest.mark.parametrize("args", [["--help"], [], ["listen"]])
def test_without_its_extra_the_command_says_so_in_one_line(missing: str, args: list[str]) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from p2pcore.cli import main; sys.exit(main({args!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=seconds(HANG_S), check=False
    )
    told = f'p2pcore: the command needs {missing}: pip install "p2pcore[cli]"\n'
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_without_its_extra_a_multiaddr_says_so() -> None:
    code = (
        "import sys; sys.modules['multiaddr'] = None\n"
        "from p2pcore import Multiaddr\n"
        "try:\n    Multiaddr('/tcp/1').to_multiaddr()\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'to_multiaddr needs the package multiaddr: pip install "p2pcore[multiaddr]"\n'


# -- the bill of materials ---------------------------------------------------------------------


def sbom(tmp_path: Path) -> Any:
    out = tmp_path / "p2pcore.cdx.json"
    words = [sys.executable, str(ROOT / "tools" / "sbom.py"), "1.2.3", "3.3.1", str(out)]
    subprocess.run(words, cwd=tmp_path, check=True)
    return json.loads(out.read_text())


@pytest.mark.source
def test_the_bill_of_materials_names_everything_and_is_the_same_each_time(tmp_path: Path) -> None:
    found = sbom(tmp_path)
    assert found == sbom(tmp_path)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["component"]["purl"] == "pkg:pypi/p2pcore@1.2.3"
    scopes = {each["purl"]: each.get("scope") for each in found["components"]}
    assert {purl for purl, scope in scopes.items() if scope == "required"} == {
        f"pkg:pypi/{name}" for name in MODULES
    }
    assert {purl for purl, scope in scopes.items() if scope == "optional"} == {
        f"pkg:pypi/{name}" for name in ("click", "rich", "dnspython", "multiaddr", "nats-py", "nkeys")
    }
    assert "pkg:pypi/cython@3.3.1" in scopes
    (needs,) = found["dependencies"]
    assert set(needs["dependsOn"]) == {purl for purl, scope in scopes.items() if scope != "optional"}


# -- wheels ------------------------------------------------------------------------------------


@pytest.mark.source
def test_wheels_are_published_for_every_python_that_the_metadata_name() -> None:
    found = configuration()
    named = {each.rsplit(" ", 1)[1] for each in found["project"]["classifiers"] if ":: 3." in each}
    built = set(found["tool"]["cibuildwheel"]["build"])
    assert built == {f"cp{version.replace('.', '')}-*" for version in named} | {"cp314t-*"}
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text())["jobs"]
    systems = jobs["wheels"]["strategy"]["matrix"]["os"]
    assert {name.split("-")[0] for name in systems} == {"ubuntu", "macos"}
    assert len(systems) == 4, "both processors of each"


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> Any:
    """tools/wheels.py as a module."""
    spec = importlib.util.spec_from_file_location("wheels", ROOT / "tools" / "wheels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "wheels", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.source
def test_the_targets_of_make_wheels_are_named_as_wheels_and_modules_are(wheels: Any) -> None:
    assert {name: (each.zig, each.platform, each.soabi) for name, each in wheels.TARGETS.items()} == {
        "manylinux-x86_64": ("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64", "x86_64-linux-gnu"),
        "musllinux-x86_64": ("x86_64-linux-musl", "musllinux_1_2_x86_64", "x86_64-linux-musl"),
        "manylinux-aarch64": ("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64", "aarch64-linux-gnu"),
        "musllinux-aarch64": ("aarch64-linux-musl", "musllinux_1_2_aarch64", "aarch64-linux-musl"),
    }


@pytest.mark.source
def test_make_wheels_sees_modules_that_the_other_system_would_not_find(wheels: Any, tmp_path: Path) -> None:
    def wrong(*names: str) -> list[str]:
        with zipfile.ZipFile(tmp_path / "some.whl", "w") as archive:
            for name in ("p2pcore/__init__.py", *names):
                archive.writestr(name, "")
        found: list[str] = wheels.misnamed(tmp_path / "some.whl", "cpython-313-aarch64-linux-gnu")
        return found

    assert wrong("p2pcore/one.cpython-313-aarch64-linux-gnu.so") == []
    of_the_builder = "p2pcore/two.cpython-313-x86_64-linux-gnu.so"
    assert wrong("p2pcore/one.cpython-313-aarch64-linux-gnu.so", of_the_builder) == [of_the_builder]
    assert wrong() == ["no module"]
