"""Who may import whom: each module sees only the levels below its own (the table of CONTRIBUTING.md).

Comes in: the source tree. Goes out: a failure that names the import. Never imports what it checks.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "p2pcore"

LEVELS = {
    0: {"errors", "limits", "codes", "options"},
    1: {"_fast"},
    2: {"interfaces", "values", "aio", "manet", "pb"},
    3: {"transports", "relay", "security", "muxers"},
    4: {"upgrade"},
    5: {"swarm", "dialing", "protocols"},
    6: {"__init__", "host", "compose", "workers", "cli"},
}
LEVEL_OF = {name: level for level, names in LEVELS.items() for name in names}
FAMILIES = {"transports", "relay", "security", "muxers"}

_CIMPORT = re.compile(
    r"^\s*(?:from\s+(p2pcore[\w.]*)\s+c?import\s+\(?([\w, ]*)|c?import\s+(p2pcore[\w.]*))", re.M
)


def modules() -> list[Path]:
    files = [*SOURCE.rglob("*.py"), *SOURCE.rglob("*.pyx"), *SOURCE.rglob("*.pxd")]
    return sorted(path for path in files if not path.name.endswith("_pb2.py"))


def top(dotted: str) -> str:
    """ "p2pcore.transports.tcp.transport" -> "transports"; "p2pcore" itself -> "__init__"."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def own_name(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.split(".")[0]


def python_imports(text: str) -> Iterator[str]:
    """Dotted names imported at run time; what only type checkers see does not count."""
    for node in ast.walk(_without_type_checking(ast.parse(text))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("p2pcore"):
            for alias in node.names:
                is_module = node.module == "p2pcore" and alias.name in LEVEL_OF
                yield f"p2pcore.{alias.name}" if is_module else node.module  # a public name is __init__'s
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("p2pcore"))


def _without_type_checking(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        for field in ("body", "orelse"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                block[:] = [n for n in block if not _is_type_checking(n)]
    return tree


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def cython_imports(text: str) -> Iterator[str]:
    for source, names, plain in _CIMPORT.findall(text):
        if source == "p2pcore":
            yield from (f"p2pcore.{name.strip()}" for name in names.split(",") if name.strip())
        else:
            yield source or plain


def forbidden(path: Path) -> Iterator[str]:
    """Imports of `path` that go up or across, as readable lines."""
    me = own_name(path)
    text = path.read_text()
    found = python_imports(text) if path.suffix == ".py" else cython_imports(text)
    for dotted in found:
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


@pytest.mark.source
def test_fast_modules_form_no_cycle() -> None:
    graph = {
        path.stem: {top2 for name in cython_imports(path.read_text()) if (top2 := _fast_name(name))}
        for path in (SOURCE / "_fast").glob("*/*.pyx")
    }
    seen: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"cycle: {' -> '.join([*above, name])}"
        if name not in seen:
            for other in graph.get(name, set()) - {name}:
                visit(other, (*above, name))
            seen.add(name)

    for module in graph:
        visit(module, ())


def _fast_name(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[3] if parts[:2] == ["p2pcore", "_fast"] and len(parts) > 3 else None


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
