"""Who may import whom: each module sees only the levels below its own (the table of CONTRIBUTING.md).

Comes in: the source tree. Goes out: a failure that names the import. Never imports what it checks.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "p2pcore"

LEVELS = {
    0: {"errors", "limits", "codes", "options", "address_hint", "late"},
    1: {"_fast"},
    2: {"interfaces", "values", "aio", "manet", "pb"},
    3: {"transports", "relay", "security", "muxers"},
    4: {"upgrade", "resources"},
    5: {"swarm", "dialing", "protocols", "metrics", "rpc", "streams"},
    6: {"__init__", "host", "compose", "workers", "cli", "admin", "contrib", "testing", "fleet"},
}
LEVEL_OF = {name: level for level, names in LEVELS.items() for name in names}
FAMILIES = {"transports", "relay", "security", "muxers"}

_CIMPORT = re.compile(
    r"^\s*(?:from\s+(p2pcore[\w.]*)\s+c?import\s+\(?([\w, ]*)|c?import\s+(p2pcore[\w.]*))", re.M
)


def modules() -> list[Path]:
    files = (path for suffix in ("py", "pyi", "pyx", "pxd") for path in SOURCE.rglob(f"*.{suffix}"))
    return sorted(path for path in files if "_pb2.py" not in path.name)


def dotted(path: Path) -> str:
    """The module a file is of: all of its .py, .pyx, .pxd and .pyi are one."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES_OF: dict[str, list[Path]] = {}
for _path in modules():
    FILES_OF.setdefault(dotted(_path), []).append(_path)


def top(dotted: str) -> str:
    """ "p2pcore.transports.tcp.transport" -> "transports"; "p2pcore" itself -> "__init__"."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def own_name(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.split(".")[0]


def python_imports(text: str) -> Iterator[str]:
    """Dotted names imported, by type checkers alone too; of `p2pcore` itself its modules, not its names."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "p2pcore":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES_OF else node.module  # else it is a name, there
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "p2pcore")


def cython_imports(text: str) -> Iterator[str]:
    for source, names, plain in _CIMPORT.findall(text):
        inner = [f"{source}.{name.split()[0]}" for name in names.split(",") if name.strip()]
        yield from ([name for name in inner if name in FILES_OF] or [source]) if source else [plain]


def imports_of(path: Path) -> set[str]:
    text = path.read_text()
    return set(python_imports(text) if path.suffix in (".py", ".pyi") else cython_imports(text))


def forbidden(path: Path) -> Iterator[str]:
    """Imports of `path` that go up or across, as readable lines."""
    me = own_name(path)
    for dotted in sorted(imports_of(path)):
        other = top(dotted)
        if other == me:
            continue
        if not _allowed(me, other):
            yield f"{path.relative_to(SOURCE)} imports {dotted}"


def _level(name: str) -> int:
    assert name in LEVEL_OF, f"{name} has no level: add it to LEVELS, and to CONTRIBUTING.md"
    return LEVEL_OF[name]


def _allowed(me: str, other: str) -> bool:
    mine, theirs = _level(me), _level(other)
    if mine == 6 or theirs < mine:
        # A transport, security protocol or muxer is named by the composition root alone.
        return mine == 6 or other not in FAMILIES or me in FAMILIES
    return mine == theirs and me not in FAMILIES and other not in FAMILIES and mine != 1


@pytest.mark.source
@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_import_goes_down(path: Path) -> None:
    assert list(forbidden(path)) == []


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The circles found on a walk through `graph`, each from the module that closes it back to itself."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(name: str, above: list[str]) -> None:
        if name in above:
            found.append([*above[above.index(name) :], name])
        elif name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, [*above, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return found


def test_the_walk_finds_circles() -> None:
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]
    assert circles({"a": {"a"}}) == [["a", "a"]]


@pytest.mark.source
def test_no_file_imports_itself_by_way_of_others_not_even_for_types() -> None:
    graph = {
        name: {other for path in paths for other in imports_of(path) if other in FILES_OF} - {name}
        for name, paths in FILES_OF.items()
    }
    assert sum(map(len, graph.values())) > 300, "the imports are not read any more"
    assert [" -> ".join(each) for each in circles(graph)] == []


FAST_ORDER = ["codec", "loop", "chain", "crypto", "mux"]


@pytest.mark.source
def test_fast_folders_import_only_earlier_ones() -> None:
    up = [
        f"{path.relative_to(SOURCE)} imports {dotted}"
        for path in (SOURCE / "_fast").glob("*/*.p[yx][xd]")
        for dotted in cython_imports(path.read_text())
        if dotted.startswith("p2pcore._fast.")
        and FAST_ORDER.index(dotted.split(".")[2]) > FAST_ORDER.index(path.parent.name)
    ]
    assert up == []


@pytest.mark.source
def test_every_pyx_has_its_pxd_and_pyi() -> None:
    for path in (SOURCE / "_fast").glob("*/*.pyx"):
        assert path.with_suffix(".pxd").exists(), f"{path.name} has no .pxd"
        assert path.with_suffix(".pyi").exists(), f"{path.name} has no .pyi"


@pytest.mark.source
def test_no_pyx_sets_directives_of_its_own() -> None:
    for path in (SOURCE / "_fast").glob("*/*.p[yx][xd]"):
        assert "# cython:" not in path.read_text(), f"{path.name}: directives belong in CMakeLists.txt"


def test_importing_p2pcore_loads_nothing_heavy() -> None:
    heavy = ["click", "rich", "google.protobuf", "multiaddr", "uvloop.loop", "p2pcore.cli"]
    code = f"import p2pcore, sys; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def public_modules() -> list[str]:
    return [name for name, paths in FILES_OF.items() if any("__all__ = [" in p.read_text() for p in paths)]


@pytest.mark.source
@pytest.mark.parametrize("name", public_modules())
def test_every_name_that_a_module_says_it_has_is_there(name: str) -> None:
    module = importlib.import_module(name)
    assert [each for each in module.__all__ if not hasattr(module, each)] == []
    exec(f"from {name} import *", {})
