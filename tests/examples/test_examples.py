"""The programs in examples/ run as they stand, each as a process of its own.

Comes in: the source tree. Goes out: a failure with what a program printed.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import looped, seconds
from p2pcore import Host

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
LIMIT_S = 60

pytestmark = pytest.mark.source


@contextmanager
def serving(*command: str, addresses: int = 1, errors: str = "") -> Iterator[list[str]]:
    """The addresses that a program prints; ends it as Ctrl-C does. `errors`: how its stderr begins."""
    program, *arguments = command
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], seconds(LIMIT_S))[0], f"{program} prints nothing"
        yield [process.stdout.readline().strip() for _ in range(addresses)]
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=seconds(LIMIT_S))
        assert (process.returncode, out) == (0, "")
        assert said.startswith(errors)
        assert bool(said) == bool(errors)
    finally:
        process.kill()
        process.communicate()


def output(*command: str, status: int = 0) -> str:
    """What a program prints until it ends: to stdout, or to stderr where it fails."""
    program, *arguments = command
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / program), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds(LIMIT_S),
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert (done.stdout if status else done.stderr) == ""
    return (done.stderr if status else done.stdout).strip()


def test_the_echo_pair() -> None:
    with serving("echo_server.py") as (address,):
        assert output("echo_client.py", address, "hello") == "hello"
        assert output("echo_client.py", address, "x" * 100_000) == "x" * 100_000
    assert output("echo_client.py", address, "hello", status=1).startswith("no echo: ")


def test_the_calculator_answers_and_refuses() -> None:
    with serving("calculator.py", "serve") as (address,):
        assert output("calculator.py", "ask", address, "add", "1", "2", "3.5") == "6.5"
        assert output("calculator.py", "ask", address, "divide", "1") == "refused: KeyError: 'divide'"
        assert output("calculator.py", "ask", address, "most").startswith("refused: ValueError")


def test_a_file_arrives_whole_and_no_part_of_one_that_does_not(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    (tmp_path / "file").write_bytes(data)
    offer = ("file_transfer.py", "offer", str(tmp_path / "file"))
    with serving(*offer, errors="not sent: ") as (address,):
        copy = tmp_path / "copy"
        assert output("file_transfer.py", "fetch", address, str(copy)) == f"{len(data)} bytes in {copy}"
        assert copy.read_bytes() == data
        (tmp_path / "file").unlink()
        assert output("file_transfer.py", "fetch", address, str(tmp_path / "second"), status=1).startswith(
            "no file: "
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


@looped
async def test_one_port_serves_both_kinds() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with serving("one_port.py", str(port), addresses=2) as addresses:
        async with Host(listen=[]) as host:
            told = []
            for address in addresses:
                stream = await host.new_stream(address, "/example-transport/1.0.0")
                told.append(await stream.read())
                await host.close_peer(address.rpartition("/")[2])
        assert told == [b"tcp", b"websocket"]


def test_http_goes_over_a_stream() -> None:
    with serving("http_server.py") as (address,):
        for path, *body in (("/",), ("/upload?x=1", "x" * 100_000)):
            status, _, text = output("http_client.py", address, path, *body).partition(" ")
            answer = json.loads(text)
            assert status == "200"
            assert (answer["path"], answer["bytes"]) == (path.partition("?")[0], len("".join(body)))
            assert answer["peer"].startswith("12D3KooW")
    assert output("http_client.py", address, "/", status=1).startswith("no answer: ")


def test_grpc_goes_over_a_stream() -> None:
    with serving("grpc_tunnel.py", "serve") as (address,):
        assert output("grpc_tunnel.py", "ask", address, "Ada") == "hello Ada"
        assert (
            output("grpc_tunnel.py", "ask", address, "", status=1) == "INVALID_ARGUMENT: a name is expected"
        )


def test_a_port_leads_to_a_program_behind_a_peer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as program:
        local = f"/ip4/127.0.0.1/tcp/{program.getsockname()[1]}"
        with (
            serving("port_forward.py", "expose", local) as (address,),
            serving("port_forward.py", "connect", address, "/ip4/127.0.0.1/tcp/0") as (port,),
            socket.create_connection(("127.0.0.1", int(port.rpartition("/")[2]))) as client,
        ):
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            served, _ = program.accept()
            with served:
                assert served.makefile("rb").read() == b"question"
                served.sendall(b"answer")
            assert client.makefile("rb").read() == b"answer"


def test_each_example_is_run_and_listed() -> None:
    text = Path(__file__).read_text()
    listed = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in text
        assert f"({path.name})" in listed
