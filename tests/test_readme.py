"""The documents say what is so: programs run, files they name exist, the import table is the checked one.

Comes in: README.md, CONTRIBUTING.md, CHANGELOG.md, docs/. Goes out: a failure that names what is not so.
"""

from __future__ import annotations

import inspect
import re
import select
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from harness import HANG_S, seconds
from p2pcore import Host

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
LIMIT_S = HANG_S

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
_NAME = re.compile(r"# ([\w.]+)\n")
"""The first line of a program that other programs of its page import, or that the reader saves."""
_OTHER = re.compile(r"^```py\n(.*?)^```$", re.M | re.S)
"""Programs of other libraries, to compare: they are not run."""
_LINK = re.compile(r"\]\(([^)#:]+)\)")
_PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)*\.(?:pyx|pxd|pyi|py|sh|md|toml|txt|proto))`")
_MEMBER = re.compile(r"`([A-Z]\w*[a-z]\w*)\.([a-z_]\w*)(?:\(.*?\))?`")
"""`Class.member`, also with arguments."""


@cache
def words_beside(owner: str) -> set[str]:
    """All words of the source files that define the class `owner` or a base of it."""
    head = re.compile(rf"^(?:cdef )?class {owner}(?:\((.*)\))?:", re.M)
    paths = [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.pyx")]
    found: set[str] = set()
    for text in (path.read_text() for path in paths):
        if match := head.search(text):
            bases = re.findall(r"\w+", match[1] or "")
            found.update(re.findall(r"\w+", text), *map(words_beside, bases))
    return found


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
        listener.send_signal(signal.SIGINT)
        _, errors = listener.communicate(timeout=seconds(LIMIT_S))
        assert (listener.returncode, errors) == (130, ""), "no traceback at Ctrl-C"
    finally:
        listener.kill()
        listener.communicate()


def test_the_echo_pair_is_short() -> None:
    lines = [line for block in programs().values() for line in block.splitlines()]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 20


def blocks() -> list[Any]:
    """Every Python block of docs/, by its document and its place in it."""
    pages = sorted((ROOT / "docs").glob("*.md"))
    return [
        pytest.param(page, block, id=f"{page.stem}-{number}")
        for page in pages
        for number, block in enumerate(_BLOCK.findall(page.read_text()))
    ]


def lay_out(directory: Path, page: Path) -> None:
    """The files that the programs of `page` take for granted."""
    from p2pcore import PSK, WebCertificate

    (directory / "swarm.key").write_bytes(PSK.generate().encode())
    certificate = WebCertificate.self_signed("127.0.0.1")
    (directory / "fullchain.pem").write_bytes(certificate.pem)
    (directory / "privkey.pem").write_bytes(
        certificate.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    for block in _BLOCK.findall(page.read_text()):
        if named := _NAME.match(block):
            (directory / named[1]).write_text(block)


@pytest.mark.source
@pytest.mark.parametrize(("page", "block"), blocks())
def test_the_programs_of_the_documents_run_as_they_stand(page: Path, block: str, tmp_path: Path) -> None:
    """Those that end, and of those that serve for ever, or need arguments, what they import and define."""
    lay_out(tmp_path, page)
    (tmp_path / "program.py").write_text(block)
    ends = re.search(r"serve\(|Event\(\)\.wait\(\)|sys\.argv", block) is None
    name = "__main__" if ends else "does_not_serve"
    done = subprocess.run(
        [sys.executable, "-c", f"import runpy; runpy.run_path('program.py', run_name={name!r})"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=seconds(2 * LIMIT_S),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (ends and block.rstrip().endswith("run(main())")) or done.stdout


@pytest.mark.source
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_documents_is_in_blocks_that_are_run(document: Path) -> None:
    text = _OTHER.sub("", _BLOCK.sub("", document.read_text()))
    assert re.findall(r"^ *(?:from p2pcore import|import p2pcore|async with |async for ).*", text, re.M) == []


@pytest.mark.source
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_documents_give_to_host_is_there(document: Path) -> None:
    given = set(re.findall(r"(?:`|\b)Host\((\w+)=", document.read_text()))
    given |= set(re.findall(r"Host\([^()`]*?, (\w+)=", document.read_text()))
    assert sorted(given - set(inspect.signature(Host).parameters)) == []


@pytest.mark.source
def test_every_argument_of_host_is_documented() -> None:
    text = (ROOT / "docs" / "options.md").read_text()
    rows = {name for row in re.findall(r"^\| (`.*?) \|", text, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert rows == set(inspect.signature(Host).parameters)


@pytest.mark.source
def test_the_changelog_has_every_public_name_and_every_argument_of_host() -> None:
    import p2pcore

    text = (ROOT / "CHANGELOG.md").read_text()
    names = {*p2pcore.__all__, *inspect.signature(Host).parameters} - {"__version__"}
    assert [name for name in sorted(names) if not re.search(rf"`{name}[`=(]", text)] == []


@pytest.mark.source
def test_every_command_and_option_is_documented() -> None:
    from p2pcore.cli.app import COMMANDS, commands

    text = (ROOT / "docs" / "cli.md").read_text()
    context = click.Context(commands)
    found = {name: commands.get_command(context, name) for name in COMMANDS}
    for name, command in list(found.items()):
        if isinstance(command, click.Group):
            found |= {f"{name} {inner}": each for inner, each in command.commands.items()}
    options = {
        option
        for command in found.values()
        if command is not None
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    wanted = {f"p2pcore {name}" for name in found if name not in ("id", "psk")} | options
    assert [each for each in sorted(wanted) if not re.search(rf"{each}(?![\w-])", text)] == []


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
    own = {match[1] for block in _BLOCK.findall(text) if (match := _NAME.match(block))}
    paths = set(_PATH.findall(_BLOCK.sub("", text))) - own
    assert [path for path in sorted(paths) if not any((place / path).exists() for place in places)] == []


@pytest.mark.source
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_members_of_classes_a_document_names_exist(document: Path) -> None:
    """`Stream.attach`: a file of the source has the class, and such a file has the name."""
    named = set(_MEMBER.findall(_BLOCK.sub("", document.read_text()))) - {("CMakeLists", "txt")}
    assert [f"{owner}.{name}" for owner, name in sorted(named) if name not in words_beside(owner)] == []


@pytest.mark.source
def test_contributing_has_the_import_table_that_is_checked() -> None:
    from test_imports import LEVELS

    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert {int(level): set(re.findall(r"`(\w+)`", names)) for level, names in rows} == LEVELS
