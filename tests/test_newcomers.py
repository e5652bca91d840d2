"""What somebody new to p2pcore gets wrong: each mistake is found where it is made, and the message helps.

Comes in: the mistake. Goes out: an error that names the value and what was expected.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from pathlib import Path
from typing import Any

import pytest

from harness import looped
from hosts import BARE, pair
from p2pcore import PSK, AddressError, Host, IdentityError, LocalProtocolError, Multiaddr, rpc
from p2pcore.address_hint import meant
from p2pcore.interfaces import Stream


async def serve(stream: Stream) -> None:
    """A good handler."""


class Server:
    async def serve(self, stream: Stream) -> None:
        """A good handler, too."""

    async def __call__(self, stream: Stream) -> None:
        """And so is the object."""

    def plain(self, stream):  # type: ignore[no-untyped-def]
        """Forgotten: async."""


def plain(stream: Stream) -> None:
    """Forgotten: async."""


async def without_argument() -> None:
    """Forgotten: the stream."""


async def with_two(stream: Stream, more: object) -> None:
    """Too many."""


def traced(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def starts(stream: Stream) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(serve(stream))


def naming(handler: object) -> str:
    """What it is, without its address: a test has the same name in every process."""
    return getattr(handler, "__qualname__", type(handler).__name__)


@pytest.mark.parametrize(
    "handler", [plain, Server().plain, without_argument, with_two, lambda: None], ids=naming
)
def test_a_handler_that_cannot_work_is_refused_at_once(handler: Any) -> None:
    host = Host(listen=())
    with pytest.raises(TypeError, match="handler must be an `async` function that takes one argument"):
        host.set_stream_handler("/x", handler)
    assert "/x" not in host.protocols


@pytest.mark.parametrize(
    "handler",
    [
        serve,
        Server().serve,
        Server(),
        traced(serve),
        starts,
        lambda stream: serve(stream),
        functools.partial(with_two, more=1),
    ],
    ids=naming,
)
def test_every_handler_that_works_is_taken(handler: Any) -> None:
    host = Host(listen=())
    host.set_stream_handler("/x", handler)
    assert "/x" in host.protocols


@pytest.mark.parametrize("protocol", [b"/x", 7, None, ["/x"]])
def test_a_protocol_id_that_is_no_text_is_refused_by_the_handler(protocol: Any) -> None:
    with pytest.raises(TypeError, match="protocol must be a str"):
        Host(listen=()).set_stream_handler(protocol, serve)


@looped
async def test_a_protocol_id_that_is_no_unicode_is_refused_everywhere() -> None:
    """os.fsdecode makes such texts of file names."""
    async with pair() as ends:
        with pytest.raises(
            LocalProtocolError, match=r"'/\\udcff' is not a protocol id: surrogates not allowed"
        ):
            await ends.conn.new_stream("/\udcff")
        with pytest.raises(ValueError, match=r"protocol id '/\\udcff': expected"):
            ends.server.set_stream_handler("/\udcff", serve)
        with pytest.raises(ValueError, match="name must be"):
            rpc.Service("/\udcff")
        assert ends.conn.num_streams == 0


@pytest.mark.parametrize("protocols", [b"/x", 7, None, {"/x"}, ["/x", b"/y"]])
@looped
async def test_protocol_ids_that_are_no_texts_are_refused_by_a_new_stream(protocols: Any) -> None:
    async with pair() as ends:
        for target in (ends.conn, ends.server.peer_id):
            with pytest.raises(TypeError, match="protocols must be"):
                await ends.dialer.new_stream(target, protocols)
        assert ends.conn.num_streams == 0


@pytest.mark.parametrize("opens", [True, False], ids=["open", "close"])
@looped
async def test_a_connection_used_from_another_thread_refuses(opens: bool) -> None:
    errors: list[str] = []

    async with pair() as ends:

        async def elsewhere() -> None:
            try:
                await (ends.conn.new_stream("/x") if opens else ends.conn.close())
            except RuntimeError as error:
                errors.append(str(error))

        thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert ends.conn.num_streams == 0
        assert not ends.conn.is_closed
    (text,) = errors
    assert "another event loop" in text
    assert "run_coroutine_threadsafe" in text


@pytest.mark.parametrize("key", ["node.key", b"\x00" * 32, Path("node.key")])
def test_a_key_that_is_a_path_or_bytes_says_how_to_read_one(key: Any) -> None:
    with pytest.raises(
        TypeError, match=r"private_key must be a PrivateKey.*PrivateKey\.read\(path\)"
    ) as caught:
        Host(key)
    assert "node.key" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_network_key_of_the_wrong_length_says_what_is_expected(size: int) -> None:
    with pytest.raises(IdentityError, match=f"^{size} bytes are no network key: expected 32 bytes"):
        PSK.of(b"\xfe" * size)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:4001", "/ip4/127.0.0.1/tcp/4001"),
        ("[::1]:4001", "/ip6/::1/tcp/4001"),
        ("example.com:4001", "/dns/example.com/tcp/4001"),
        ("10.0.0.1", "/ip4/10.0.0.1/tcp/PORT"),
        ("ws://example.com/", "/dns/example.com/tcp/80/ws"),
        ("wss://example.com", "/dns/example.com/tcp/443/tls/ws"),
        ("tcp://10.0.0.1:5", "/ip4/10.0.0.1/tcp/5"),
        ("/ip4/127.0.0.1:4001", "/ip4/127.0.0.1/tcp/4001"),
        ("localhost", None),
        ("ftp://example.com", None),
        ("", None),
        ("x" * 5000, None),
        ("\x00:1", None),
    ],
)
def test_an_address_in_another_form_is_understood_and_shown_as_a_multiaddr(
    text: str, expected: str | None
) -> None:
    assert meant(text) == expected
    with pytest.raises(AddressError) as caught:
        Multiaddr(text)
    assert ("is meant" in str(caught.value)) == (expected is not None)
    if expected is not None and "PORT" not in expected:
        assert expected in str(caught.value)
        assert str(Multiaddr(expected)) == expected


@looped
async def test_connecting_to_an_address_in_another_form_says_so() -> None:
    async with Host(**BARE) as host:
        with pytest.raises(AddressError, match=r"perhaps /ip4/127\.0\.0\.1/tcp/4001 is meant"):
            await host.connect("127.0.0.1:4001")
        with pytest.raises(IdentityError):
            await host.connect("nonsense")


def test_the_documents_say_that_an_address_without_an_id_proves_nothing() -> None:
    text = inspect.getdoc(Host.connect) or ""
    assert "whoever answers" in text
