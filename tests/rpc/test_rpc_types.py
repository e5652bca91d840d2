"""A type checker finds a wrong request, a wrong use of an answer and a wrong handler, at its line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed")
pytestmark = [pytest.mark.source, pytest.mark.slow]

SOURCE = Path(__file__).parent.parent.parent / "src"
PROGRAM = """
from collections.abc import AsyncIterator
from p2pcore import Host, rpc

TEXT = rpc.Codec(str.encode, bytes.decode)
NUMBER = rpc.Codec[int](lambda number: str(number).encode(), int)
LENGTH = rpc.Method("length", TEXT, NUMBER)
COUNT = rpc.StreamMethod("count", NUMBER, NUMBER)
service = rpc.Service("/texts/1.0.0")

@service.method(LENGTH)
async def length(text: str, call: rpc.Call) -> int:
    return len(text)

@service.method(COUNT)
async def count(most: int, call: rpc.Call) -> AsyncIterator[int]:
    yield most

@service.method(LENGTH)  # wrong
async def of_a_number(text: int, call: rpc.Call) -> int:
    return 1

@service.method(LENGTH)  # wrong
async def answers_text(text: str, call: rpc.Call) -> str:
    return text

@service.method(COUNT)  # wrong
async def answers_once(most: int, call: rpc.Call) -> int:
    return most

async def main(host: Host, texts: rpc.Client) -> None:
    service.serve(host)
    number: int = await texts.call(LENGTH, "four", timeout_s=1)
    print(number, await texts.call(LENGTH, "four"))
    async with texts.stream(COUNT, 3) as numbers:
        numbers_seen: list[int] = [each async for each in numbers]
    text: str = await texts.call(LENGTH, "four")  # wrong
    await texts.call(LENGTH, 4)  # wrong
    await texts.call(COUNT, 4)  # wrong
    texts.stream(COUNT, "3")  # wrong
"""


def test_mypy_finds_each_wrong_line_and_no_other(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "program.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(SOURCE), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(line) for line in re.findall(r"^program\.py:(\d+): error", done.stdout, re.M)}
    wrong = {i for i, line in enumerate(PROGRAM.split("\n"), 1) if "# wrong" in line}
    assert found == wrong, done.stdout + done.stderr
