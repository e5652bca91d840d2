"""What a host is given is checked at once: the error names the argument, the value and what is right."""

from __future__ import annotations

import dataclasses
import math
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import p2pcore
from p2pcore import (
    AccessLogOptions,
    AnnounceOptions,
    BasicGater,
    ConnOptions,
    DialOptions,
    DrainOptions,
    Host,
    IdentifyOptions,
    Limits,
    ListenerOptions,
    MplexOptions,
    Multiaddr,
    PrivateKey,
    RelayOptions,
    Supervisor,
    TcpOptions,
    UnixOptions,
    WebsocketOptions,
    YamuxOptions,
    limits,
    options,
)

CLASSES: list[type[Any]] = [
    AccessLogOptions,
    AnnounceOptions,
    ConnOptions,
    DialOptions,
    DrainOptions,
    IdentifyOptions,
    ListenerOptions,
    MplexOptions,
    RelayOptions,
    TcpOptions,
    UnixOptions,
    WebsocketOptions,
    YamuxOptions,
]
SECRET = "6e6f7420666f7220616e796f6e65"


class HalfAGater:
    def intercept_secured(self, *_: object) -> bool:
        return True


class HalfAResolver:
    async def addresses(self, name: str, version: int) -> list[str]:
        return []


def fields() -> Iterator[Any]:
    """Every field of every option class, by the type it is declared with."""
    for made in CLASSES:
        for field in dataclasses.fields(made):
            yield pytest.param(made, field.name, str(field.type), id=f"{made.__name__}.{field.name}")


def wrong_values(declared: str) -> list[object]:
    """Values that no field declared so takes."""
    if declared.startswith("float"):
        return [-1.0, math.nan, math.inf, True, "1", limits.MAX_TIMEOUT_S * 2]
    if declared.startswith("int"):
        return [-1, True, "1", 1.5, 1 << 64]
    if declared.startswith("bool"):
        return [1, 0, "yes", None]
    if "PathLike" in declared:
        return [5, b"bytes"]
    if declared.startswith("str"):
        return [5, b"bytes", "x" * 5000]
    return [object(), 5]


@pytest.mark.parametrize(("made", "name", "declared"), list(fields()))
def test_every_field_of_every_option_class_is_checked(made: type[Any], name: str, declared: str) -> None:
    for value in wrong_values(declared):
        with pytest.raises((TypeError, ValueError)) as caught:
            made(**{name: value})
        assert name in str(caught.value), f"{value!r}: {caught.value}"
        assert re.search(r" must (be|have) ", str(caught.value)), f"{value!r}: {caught.value}"


@pytest.mark.parametrize("made", CLASSES)
def test_option_objects_are_frozen_slotted_and_have_defaults(made: type[Any]) -> None:
    made_so = made()
    assert made_so == made()
    assert not hasattr(made_so, "__dict__")
    for field in dataclasses.fields(made):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made_so, field.name, getattr(made_so, field.name))
        assert dataclasses.replace(made_so, **{field.name: getattr(made_so, field.name)}) == made_so


WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    # each message word for word
    (
        lambda: YamuxOptions(keepalive_s=-1),
        ValueError,
        "keepalive_s must be a number of seconds from 0 (never) to 31536000, not -1",
    ),
    (
        lambda: ListenerOptions(accept_timeout=math.nan),
        ValueError,
        "accept_timeout must be a number of seconds more than 0 and at most 31536000, not nan",
    ),
    (
        lambda: ListenerOptions(max_upgrading=True),
        TypeError,
        "max_upgrading must be a whole number from 1 to 2147483647, not a bool True",
    ),
    (
        lambda: ListenerOptions(backoff_min=2.0),
        ValueError,
        "backoff_max must be at least backoff_min (2), not 1",
    ),
    (
        lambda: TcpOptions(dial_from="localhost"),
        ValueError,
        "dial_from must be a numeric IP address, not 'localhost'",
    ),
    (
        lambda: UnixOptions(mode=600),
        ValueError,
        "mode must be permissions such as 0o600, at most 0o777, not 600",
    ),
    (
        lambda: DialOptions(resolver=HalfAResolver()),  # type: ignore[arg-type]
        TypeError,
        "resolver must be a Resolver (p2pcore.interfaces), not a HalfAResolver without texts",
    ),
    (
        lambda: WebsocketOptions(certificate="fullchain.pem"),  # type: ignore[arg-type]
        TypeError,
        "certificate must be a WebCertificate or a Context, not a str",
    ),
    (
        lambda: Host(gater=HalfAGater()),  # type: ignore[arg-type]
        TypeError,
        "gater must be a Gater (p2pcore.interfaces), not a HalfAGater without intercept_peer_dial, "
        "intercept_addr_dial, intercept_accept, intercept_upgraded",
    ),
    (
        lambda: Host(gater=BasicGater),  # type: ignore[arg-type]
        TypeError,
        "gater must be a Gater (p2pcore.interfaces), not the class BasicGater itself",
    ),
    (
        lambda: Host(listen="/ip4/127.0.0.1/tcp/0"),
        TypeError,
        "listen must be a list of addresses, not a str '/ip4/127.0.0.1/tcp/0'",
    ),
    (
        lambda: Host(listen=Multiaddr("/memory/1")),  # type: ignore[arg-type]
        TypeError,
        "listen must be a list of addresses, not a Multiaddr <Multiaddr /memory/1>",
    ),
    (
        lambda: Host(listen=[b"/memory/1"]),  # type: ignore[list-item]
        TypeError,
        "each item of listen must be a Multiaddr or a str, not a bytes b'/memory/1'",
    ),
    (
        lambda: Host(SECRET),  # type: ignore[arg-type]
        TypeError,
        "private_key must be a PrivateKey, not a str: PrivateKey.read(path) reads a file, "
        "PrivateKey.from_protobuf, from_base64 and from_pem read a key",
    ),
    (lambda: Host(psk=5), TypeError, "psk must be a PSK or a str or a PathLike or a bytes, not an int"),  # type: ignore[arg-type]
    (lambda: Host(ping=1), TypeError, "ping must be True or False, not an int 1"),  # type: ignore[arg-type]
    (
        lambda: Host(identify="me/1"),  # type: ignore[arg-type]
        TypeError,
        "identify must be a bool or an IdentifyOptions, not a str 'me/1'",
    ),
    (lambda: Host(tcp={}), TypeError, "tcp must be a TcpOptions, not a dict {}"),  # type: ignore[arg-type]
    (
        lambda: Host(security=[]),
        ValueError,
        "security must have at least one of 'noise', 'tls', 'plaintext', not be an empty list",
    ),
    (
        lambda: Host(muxers=[object]),  # type: ignore[list-item]
        TypeError,
        "each item of muxers must be a Multiplexer (p2pcore.interfaces), not the class object itself",
    ),
    (lambda: Supervisor(print, workers=0), ValueError, "workers must be a whole number from 1 to 256, not 0"),
    (
        lambda: Supervisor(print, workers=1, private_key=SECRET),  # type: ignore[arg-type]
        TypeError,
        "private_key must be a PrivateKey, not a str",
    ),
]


@pytest.mark.parametrize(
    ("make", "kind", "text"), WRONG, ids=[text.split(" must")[0] for _, _, text in WRONG]
)
def test_the_message_says_what_was_given_and_what_is_right(
    make: Callable[[], object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "argument", ["tcp", "websocket", "unix", "yamux", "mplex", "listener", "dial", "conns"]
)
def test_options_of_another_class_are_refused(argument: str) -> None:
    other: Any = RelayOptions()
    with pytest.raises(TypeError, match=f"{argument} must be an? .*Options, not a RelayOptions"):
        Host(**{argument: other})


def test_a_relay_service_takes_relay_options_only() -> None:
    with pytest.raises(TypeError, match="relay_service must be a RelayOptions, not a bool True"):
        Host(relay_service=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode(), bytearray(SECRET.encode())])
def test_a_secret_is_never_shown(secret: Any) -> None:
    psk: Any = [secret]
    for make in (lambda: Host(secret), lambda: Host(psk=psk)):
        with pytest.raises(TypeError) as caught:
            make()
        assert SECRET not in str(caught.value)


@contextmanager
def listening(family: socket.AddressFamily) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        yield sock


def test_sockets_belong_to_the_options_of_their_family() -> None:
    with listening(socket.AF_UNIX) as sock, pytest.raises(ValueError, match="belong to UnixOptions"):
        TcpOptions(sockets=(sock,))
    with listening(socket.AF_INET) as sock, pytest.raises(ValueError, match="belong to TcpOptions"):
        UnixOptions(sockets=(sock,))
    with pytest.raises(TypeError, match="each item of sockets must be a socket, not an int 3"):
        TcpOptions(sockets=(3,))  # type: ignore[arg-type]


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(TypeError) as caught:
        options.whole("n", ["x" * 50] * 1000)
    assert len(str(caught.value)) < 200


def test_what_is_right_is_taken() -> None:
    """The busiest honest program: everything set, nothing unusual."""
    host = Host(
        PrivateKey.generate(),
        [Multiaddr("/memory/0"), "/ip4/127.0.0.1/tcp/0"],
        security=["noise", "tls"],
        muxers=("yamux", "mplex"),
        psk=bytes(32),
        gater=BasicGater(),
        tcp=TcpOptions(connect_timeout=1, linger=0, reuse_port=True, backlog=0, dial_from="::1"),
        websocket=WebsocketOptions(ca_file="ca.pem", verify=False, use_proxies=False),
        unix=UnixOptions(mode=0o600),
        yamux=YamuxOptions(max_inbound_streams=0, keepalive_s=15, window_budget_bytes=0),
        mplex=MplexOptions(stall_s=0),
        listener=ListenerOptions(accept_timeout=3, queue_length=1, max_slow=0),
        dial=DialOptions(max_dials=1),
        limits=Limits(max_conns=10, max_conns_per_peer=1, memory=1 << 30),
        conns=ConnOptions("dedup"),
        identify=IdentifyOptions("me/1", push_delay_s=0),
        ping=False,
        perf=True,
        echo=True,
        relay_service=RelayOptions(circuit_s=0, circuit_bytes=0, may_reserve=lambda *_: True),
    )
    assert "/ipfs/ping/1.0.0" not in host.protocols
    assert "/echo/1.0.0" in host.protocols


def test_numbers_of_handlers_follow_the_multiplexer_in_use() -> None:
    from p2pcore import compose

    yamux, mplex = YamuxOptions(max_inbound_streams=3), MplexOptions(max_inbound_streams=7)
    assert compose.max_inbound_streams(["yamux"], yamux, mplex) == 3
    assert compose.max_inbound_streams(["mplex", "yamux"], yamux, mplex) == 7
    assert compose.max_inbound_streams(["mplex"], yamux, None) == limits.MPLEX_MAX_INBOUND_STREAMS


def test_what_a_running_host_is_given_is_checked_too() -> None:
    host: Any = Host(listen=())
    with pytest.raises(TypeError, match="handler must be a function, not None"):
        host.set_stream_handler("/x", None)
    with pytest.raises(TypeError, match=r"notifiee must be a Notifiee .* without listen, listen_close"):
        host.notify(object())


def test_every_option_class_is_here() -> None:
    there = {each for each in p2pcore.__all__ if each.endswith("Options")}
    has_no_default = {"TraceOptions"}  # a tracer is the program's: see contrib/test_otel_traces.py
    assert there == has_no_default | {each.__name__ for each in CLASSES}
