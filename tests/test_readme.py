"""The documents say what is so: programs run, files they name exist, the import table is the checked one.

Comes in: README.md, CONTRIBUTING.md, CHANGELOG.md, docs/. Goes out: a failure that names what is not so.
"""

from __future__ import annotations

import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from harness import seconds

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
LIMIT_S = 30

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
_LINK = re.compile(r"\]\(([^)#:]+)\)")
_PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)*\.(?:pyx|pxd|pyi|py|sh|md|toml|txt|proto))`")


def programs() -> dict[str, str]:
    """The README's Python blocks by the name in their first line."""
    blocks = _BLOCK.findall(README.read_text())
    return {re.match(r"# ([\w.]+)", block)[1]: block for block in blocks}  # type: ignore[index]


def test_the_echo_pair_runs_as_it_stands(tmp_path: Path) -> None:
    found = programs()
    assert list(found) == ["listener.py", "dialer.py"]
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    listener = subprocess.Popen(
        [sys.executable, "listener.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert listener.stdout is not None
        assert select.select([listener.stdout], [], [], seconds(LIMIT_S))[0], "the listener prints nothing"
        done = subprocess.run(
            [sys.executable, "dialer.py", listener.stdout.readline().strip()],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=seconds(LIMIT_S),
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "b'hello, world'\n", "")
        assert listener.poll() is None
    finally:
        listener.kill()
        _, errors = listener.communicate()
    assert errors == ""


def test_the_echo_pair_is_short() -> None:
    lines = [line for block in programs().values() for line in block.splitlines()]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 20


@pytest.mark.source
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_files_a_document_names_exist(document: Path) -> None:
    text = document.read_text()
    links = [(document.parent / link).exists() or link for link in _LINK.findall(text)]
    assert [link for link in links if link is not True] == []
    places = (
        ROOT,
        ROOT / "src" / "p2pcore",
        ROOT / "src" / "p2pcore" / "_fast",
        ROOT / "tests",
        document.parent,
    )
    paths = set(_PATH.findall(_BLOCK.sub("", text)))
    assert [path for path in sorted(paths) if not any((place / path).exists() for place in places)] == []


@pytest.mark.source
def test_contributing_has_the_import_table_that_is_checked() -> None:
    from test_imports import LEVELS

    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert {int(level): set(re.findall(r"`(\w+)`", names)) for level, names in rows} == LEVELS
