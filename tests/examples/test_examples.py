"""The programs in examples/ run as they stand, each as a process of its own.

Comes in: the source tree. Goes out: a failure with what a program printed.
"""

from __future__ import annotations

import asyncio
import json
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from harness import looped, seconds
from nats_server import NatsServer
from p2pcore import Host, PrivateKey

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
LIMIT_S = 60
LINGER_RESET = struct.pack("ii", 1, 0)  # closing sends RST

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


def output(*command: str, status: int = 0, tries: int = 0) -> str:
    """What a program prints until it ends: to stdout, or to stderr where it fails after some tries."""
    program, *arguments = command
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / program), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds(LIMIT_S),
        check=False,
    )
    assert done.returncode == status, done.stderr
    out, err = done.stdout, done.stderr
    if status:
        assert [line[:5] for line in out.splitlines()] == ["again"] * tries
        return err.strip()
    assert err == ""
    return out.strip()


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


def test_a_service_answers_streams_and_refuses() -> None:
    with serving("rpc_stock.py", "serve") as (address,):
        assert output("rpc_stock.py", "order", address, "tea", "3") == "7"
        assert output("rpc_stock.py", "order", address, "tea", "8", status=1) == (
            "refused: FAILED_PRECONDITION: 7 of tea are left"
        )
        assert (
            output("rpc_stock.py", "watch", address, "ink", status=1) == "refused: NOT_FOUND: there is no ink"
        )
        watching = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "rpc_stock.py"), "watch", address, "tea"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watching.stdout is not None
        try:
            assert watching.stdout.readline() == "7\n"
            assert output("rpc_stock.py", "order", address, "tea", "7") == "0"
            assert watching.communicate(timeout=seconds(LIMIT_S))[0] == "0\n"
        finally:
            watching.kill()
            watching.communicate()


def test_a_file_arrives_whole_and_no_part_of_one_that_does_not(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    file, copy, part = tmp_path / "file", tmp_path / "copy", tmp_path / "copy.part"
    file.write_bytes(data)
    with serving("file_transfer.py", "offer", str(file), errors="not sent: ") as (address,):
        fetch = ("file_transfer.py", "fetch", address, str(copy))
        for wrong in (b"x" * 1000, data + b"x"):
            part.write_bytes(wrong)
            assert output(*fetch, status=1) == "no file: this is not the file that was offered"
            assert not copy.exists()
            assert output(*fetch) == f"{len(data)} bytes in {copy}"
            assert copy.read_bytes() == data
            copy.unlink()
        file.unlink()
        assert output(*fetch, status=1, tries=3) == "no file: stream reset by the peer"
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == []


@looped
async def test_a_file_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    file, copy, part = tmp_path / "file", tmp_path / "copy", tmp_path / "copy.part"
    file.write_bytes(random.Random(1).randbytes(40_000_000))  # a wrong offset shows
    cuts = [2_000_000, 1_000_000]

    def is_cut() -> bool:
        return bool(cuts) and part.exists() and part.stat().st_size >= cuts[-1]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes the bytes of a connection on, and breaks it as soon as so much of the file has arrived."""
        back, forth = await asyncio.open_connection(host, port)
        up = asyncio.create_task(pass_on(reader, forth, lambda: False))
        await pass_on(back, writer, is_cut)
        up.cancel()
        if is_cut():
            cuts.pop()
        for end in (writer, forth):
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            end.transport.abort()

    with serving("file_transfer.py", "offer", str(file)) as (address,):
        _, ip4, host, tcp, port, *peer = address.split("/")
        proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
        cut = "/".join(("", ip4, host, tcp, str(proxy.sockets[0].getsockname()[1]), *peer))
        said = (await asyncio.to_thread(output, "file_transfer.py", "fetch", cut, str(copy))).splitlines()
        proxy.close()
    begins = [int(line.split(":")[0].removeprefix("again from byte ")) for line in said[:-1]]
    assert len(begins) == 2
    assert 1_000_000 <= begins[0] < begins[1] < file.stat().st_size
    assert copy.read_bytes() == file.read_bytes()


async def pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_cut: Callable[[], bool]
) -> None:
    while not is_cut() and (chunk := await reader.read(65536)):
        writer.write(chunk)
        await writer.drain()


def test_a_hub_sends_what_is_published_to_all_subscribers() -> None:
    with serving("hub.py", "serve") as (address,):
        listening = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "hub.py"), "listen", address, "2", "20"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert listening.stdout is not None
        try:
            assert listening.stdout.readline() == "20 subscribers\n"
            assert output("hub.py", "publish", address, "tea", "rice") == "20\n20"
            lines = listening.communicate(timeout=seconds(LIMIT_S))[0].splitlines()
            assert [line.partition(": p50 ")[0] for line in lines] == ["tea", "rice"]
        finally:
            listening.kill()
            listening.communicate()
        assert output("hub.py", "publish", address, "nobody hears this") == "0"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_a_web_application_tells_its_peers() -> None:
    ports = [free_port(), free_port()]
    notes = [f"http://127.0.0.1:{port}/notes" for port in ports]
    nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{PrivateKey.generate().peer_id}"
    retrying = httpx.HTTPTransport(retries=8)  # the address is printed before uvicorn listens
    with (
        serving("fastapi_notes.py", str(ports[0])) as (first,),
        serving("fastapi_notes.py", str(ports[1]), first, nobody),
        httpx.Client(transport=retrying, timeout=seconds(LIMIT_S)) as client,
    ):
        assert client.post(notes[1], json={"text": "milk"}).json() == {"peers": 1}
        assert client.post(notes[1], json={"text": "x" * 1001}).status_code == 422
        assert [client.get(url).json() for url in notes] == [[{"text": "milk"}]] * 2


def test_a_fleet_shows_the_metrics_of_all_workers() -> None:
    fleet = ("worker_fleet.py", "serve", "2", "127.0.0.1:0")
    with serving(*fleet, addresses=2) as (address, url):
        texts = ["tea", "rice", "milk"] * 4
        assert output("worker_fleet.py", "ask", address, *texts).split() == [text.upper() for text in texts]
        shown = output("worker_fleet.py", "scrape", url).splitlines()
    opened = 'p2pcore_streams_opened_total{dir="inbound",protocol="/example-fleet/1.0.0"} 12'
    assert opened in shown
    assert sorted(line for line in shown if line.startswith("p2pcore_worker_up")) == [
        f'p2pcore_worker_up{{worker="{number}"}} 1' for number in (0, 1)
    ]


@looped
async def test_one_port_serves_both_kinds() -> None:
    with serving("one_port.py", str(free_port()), addresses=2) as addresses:
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


@contextmanager
def joined(address: str, count: int) -> Iterator[subprocess.Popen[str]]:
    """A peer of the chat."""
    command = [sys.executable, str(EXAMPLES / "chat_fleet.py"), "join", address, str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
        assert process.wait(seconds(LIMIT_S)) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_chat_of_three_processes(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    server.start()
    chat = ("chat_fleet.py", "serve", server.url)
    try:
        server.wait_ready()
        with serving(*chat) as (one,), serving(*chat) as (two,), serving(*chat) as (three,):
            with joined(one, 3) as first, joined(two, 2) as second:
                assert first.stdout is not None
                assert second.stdout is not None
                name = first.stdout.readline().strip()
                second.stdout.readline()
                assert output("chat_fleet.py", "say", three, "hello", "all") == "said\nsaid"
                assert [second.stdout.readline() for _ in range(2)] == ["hello\n", "all\n"]
                time.sleep(seconds(0.2))  # presence
                assert output("chat_fleet.py", "whisper", three, name, "psst") == "heard"
                heard = [first.stdout.readline() for _ in range(3)]
                assert sorted(heard) == ["(whispered) psst\n", "all\n", "hello\n"]
            said = output("chat_fleet.py", "whisper", two, name, "gone?")
            assert said.startswith(f"no delivery to {name}: ")
            assert output("chat_fleet.py", "whisper", two, "nobody", "x").startswith("peer id 'nobody'")
    finally:
        server.kill()
