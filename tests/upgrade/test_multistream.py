"""multistream.py: messages, both roles, the lazy form, and every bad input of multistream-select."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from harness import TAIL, feeding, looped, run, seconds
from p2pcore.errors import (
    ConnectionClosed,
    IncompleteRead,
    LimitExceeded,
    LocalProtocolError,
    NegotiationError,
    ProtocolNotSupported,
)
from p2pcore.upgrade.multistream import (
    HEADER,
    NOT_AVAILABLE,
    body_length,
    encode,
    handle,
    propose,
    select,
    text_of,
)
from wires import connected, received

VECTORS = {
    "/multistream/1.0.0": "132f6d756c746973747265616d2f312e302e300a",
    "na": "036e610a",
    "ls": "036c730a",
    "/noise": "072f6e6f6973650a",
    "/tls/1.0.0": "0b2f746c732f312e302e300a",
    "/plaintext/2.0.0": "112f706c61696e746578742f322e302e300a",
    "/yamux/1.0.0": "0d2f79616d75782f312e302e300a",
    "/mplex/6.7.0": "0d2f6d706c65782f362e372e300a",
    "/ipfs/id/1.0.0": "0f2f697066732f69642f312e302e300a",
    "/ipfs/id/push/1.0.0": "142f697066732f69642f707573682f312e302e300a",
    "/ipfs/ping/1.0.0": "112f697066732f70696e672f312e302e300a",
    "/perf/1.0.0": "0c2f706572662f312e302e300a",
    "/libp2p/circuit/relay/0.2.0/hop": "202f6c69627032702f636972637569742f72656c61792f302e322e302f686f700a",
    "/libp2p/circuit/relay/0.2.0/stop": (
        "212f6c69627032702f636972637569742f72656c61792f302e322e302f73746f700a"
    ),
    "/libp2p/dcutr": "0e2f6c69627032702f64637574720a",
    "/libp2p/simultaneous-connect": "1d2f6c69627032702f73696d756c74616e656f75732d636f6e6e6563740a",
    "select:1234567890": "1273656c6563743a313233343536373839300a",
    "initiator": "0a696e69746961746f720a",
    "responder": "0a726573706f6e6465720a",
}
NOISE = bytes.fromhex(VECTORS["/noise"])
TLS = bytes.fromhex(VECTORS["/tls/1.0.0"])
SUPPORTED = {"/noise", "/yamux/1.0.0"}


class Script:
    """A Channel whose peer has said all it says: reads what is given, keeps what is written.

    With `is_stream`, writes are awaited, as those of a Stream are.
    """

    def __init__(self, data: bytes, is_stream: bool = False) -> None:
        self.left = data
        self.written: list[bytes] = []
        self._is_stream = is_stream
        self.num_turns = 0

    async def read_exactly(self, n: int) -> bytes:
        if n > len(self.left):
            raise IncompleteRead(self.left, n)
        out, self.left = self.left[:n], self.left[n:]
        return out

    async def read(self, max_bytes: int) -> bytes:
        return await self.read_exactly(min(max_bytes, len(self.left)))

    def take_opening(self) -> bytes | None:
        return None

    async def turn(self) -> None:
        self.num_turns += 1

    def write(self, data: bytes) -> Awaitable[None] | None:
        if self._is_stream:
            return self._later(data)
        self.written.append(data)
        return None

    def write_later(self, data: bytes) -> None:
        self.written.append(data)

    def expect(self, reply: bytes, protocol: str, step: str) -> None:
        self.expected = (reply, protocol, step)

    async def _later(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.written.append(data)


# -- messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "wire"), VECTORS.items(), ids=VECTORS.keys())
def test_message_vectors(text: str, wire: str) -> None:
    assert encode(text).hex() == wire
    assert text_of(bytes.fromhex(wire)) == text
    assert body_length(bytes.fromhex(wire)[:1]) == len(wire) // 2 - 1


def test_longest_protocol_id_is_encoded_with_a_two_byte_length() -> None:
    text = "/" + "x" * 254
    assert encode(text)[:2] == bytes.fromhex("8002")
    assert text_of(encode(text)) == text


def test_longest_protocol_id_counts_bytes() -> None:
    assert encode("/" + "é" * 127)
    for text in ("/" + "x" * 255, "/" + "é" * 128):
        with pytest.raises(LimitExceeded):
            encode(text)


@pytest.mark.parametrize("text", ["", "\n", "/a\n", "/a\nb"])
def test_text_that_is_no_protocol_id_is_refused(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode(text)


def test_longest_message_is_taken_and_a_longer_one_refused_by_its_length() -> None:
    assert body_length(bytes.fromhex("8008")) == 1024
    with pytest.raises(NegotiationError):
        body_length(bytes.fromhex("8108"))


@pytest.mark.parametrize("message", ["082f6e6f0a6973650a", "04fffe310a"], ids=["newline", "not UTF-8"])
def test_text_that_cannot_be_a_protocol_id_is_none(message: str) -> None:
    assert text_of(bytes.fromhex(message)) is None


@given(st.binary(min_size=2, max_size=2))
def test_any_length_is_in_bounds_or_refused(prefix: bytes) -> None:
    try:
        assert 1 <= body_length(prefix) <= 1024
    except NegotiationError:
        pass


# -- initiator ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True], ids=["mailbox", "stream"])
def test_initiator_sends_header_and_first_proposal_in_one_write(is_stream: bool) -> None:
    io = Script(HEADER + NOISE, is_stream)
    assert run(select(io, ["/noise", "/tls/1.0.0"])) == "/noise"
    assert io.written == [bytes.fromhex("132f6d756c746973747265616d2f312e302e300a072f6e6f6973650a")]


def test_initiator_proposes_the_next_after_na() -> None:
    io = Script(HEADER + NOT_AVAILABLE + TLS)
    assert run(select(io, ["/noise", "/tls/1.0.0"])) == "/tls/1.0.0"
    assert io.written == [HEADER + NOISE, TLS]


@looped
async def test_initiator_leaves_what_follows_the_echo_for_any_cut() -> None:
    for chunks, tail in feeding(HEADER + NOT_AVAILABLE + TLS):
        async with connected() as (mailbox, theirs):
            task = asyncio.create_task(select(mailbox, ["/noise", "/tls/1.0.0"]))
            for chunk in chunks:
                theirs.send(chunk)
                await asyncio.sleep(0)
            assert await task == "/tls/1.0.0"
            assert await mailbox.read_exactly(len(tail)) == tail
            assert await received(theirs, 40) == HEADER + NOISE + TLS


@looped
async def test_initiator_proposes_before_it_has_the_peers_header() -> None:
    async with connected() as (mailbox, theirs):
        task = asyncio.create_task(select(mailbox, ["/noise"]))
        assert await received(theirs, 28) == HEADER + NOISE
        theirs.send(HEADER + NOISE)
        assert await task == "/noise"


def test_initiator_whose_proposals_are_all_refused_names_them() -> None:
    io = Script(HEADER + NOT_AVAILABLE * 2)
    with pytest.raises(ProtocolNotSupported) as caught:
        run(select(io, ["/noise", "/tls/1.0.0"]))
    assert caught.value.protocols == ("/noise", "/tls/1.0.0")


def test_initiator_tolerates_a_second_header_before_the_first_answer() -> None:
    assert run(select(Script(HEADER * 2 + NOISE), ["/noise"])) == "/noise"


@pytest.mark.parametrize(
    ("answers", "protocols"),
    [
        (HEADER * 3 + NOISE, ["/noise"]),
        (HEADER + NOT_AVAILABLE + HEADER + TLS, ["/noise", "/tls/1.0.0"]),
    ],
    ids=["third", "after na"],
)
def test_initiator_refuses_further_headers(answers: bytes, protocols: Sequence[str]) -> None:
    with pytest.raises(NegotiationError):
        run(select(Script(answers), protocols))


def test_initiator_refuses_to_propose_nothing_or_too_much() -> None:
    io = Script(b"")
    with pytest.raises(LocalProtocolError):
        run(select(io, []))
    with pytest.raises(LimitExceeded):
        run(select(io, [f"/{i}" for i in range(65)]))
    with pytest.raises(LocalProtocolError):
        run(select(io, ["/noise", "/no\nise"]))
    assert io.written == []


# -- responder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True], ids=["mailbox", "stream"])
def test_responder_sends_header_and_echo_in_one_write(is_stream: bool) -> None:
    io = Script(HEADER + NOISE, is_stream)
    assert run(handle(io, SUPPORTED)) == "/noise"
    assert io.written == [HEADER + NOISE]


def test_responder_answers_na_in_one_write_with_its_header_and_listens_on() -> None:
    io = Script(HEADER + TLS + NOISE)
    assert run(handle(io, SUPPORTED)) == "/noise"
    assert io.written == [bytes.fromhex("132f6d756c746973747265616d2f312e302e300a036e610a"), NOISE]


@looped
async def test_responder_sends_its_header_to_a_peer_that_waits_for_it() -> None:
    async with connected() as (mailbox, theirs):
        task = asyncio.create_task(handle(mailbox, SUPPORTED))
        theirs.send(HEADER)
        assert await received(theirs, 20) == HEADER
        theirs.send(NOISE)
        assert await task == "/noise"
        mailbox.write(b"first message")
        assert await received(theirs, 21) == NOISE + b"first message", "in one packet"


@looped
async def test_responder_keeps_what_a_lazy_peer_sends_behind_its_proposal_for_any_cut() -> None:
    for chunks, tail in feeding(HEADER + TLS + NOISE):
        async with connected() as (mailbox, theirs):
            task = asyncio.create_task(handle(mailbox, SUPPORTED))
            for chunk in chunks:
                theirs.send(chunk)
                await asyncio.sleep(0)
            assert await task == "/noise"
            assert await mailbox.read_exactly(len(tail)) == tail
            reading = asyncio.create_task(mailbox.read_exactly(1))
            assert await received(theirs, 32) == HEADER + NOT_AVAILABLE + NOISE
            reading.cancel()


@pytest.mark.parametrize("is_stream", [False, True], ids=["mailbox", "stream"])
def test_both_roles_agree_over_streams_and_mailboxes(is_stream: bool) -> None:
    lazy = Script(b"")
    propose(lazy, "/yamux/1.0.0", "step")
    (opening,) = lazy.written
    io = Script(opening + TAIL, is_stream)
    assert run(handle(io, SUPPORTED)) == "/yamux/1.0.0"
    assert lazy.expected == (b"".join(io.written), "/yamux/1.0.0", "step")
    assert io.left == TAIL


@pytest.mark.parametrize(
    "proposal",
    [
        bytes.fromhex(VECTORS["ls"]),
        bytes.fromhex(VECTORS["/libp2p/simultaneous-connect"]),
        bytes.fromhex("04fffe310a"),
        bytes.fromhex("082f6e6f0a6973650a"),
        bytes.fromhex("010a"),
        HEADER,
        bytes.fromhex("8008") + b"x" * 1023 + b"\n",
        bytes.fromhex("082f6e6f697365200a"),
    ],
    ids=["ls", "simultaneous", "not UTF-8", "newline inside", "empty", "header", "longest", "trailing blank"],
)
def test_responder_answers_na_to_what_it_does_not_speak(proposal: bytes) -> None:
    io = Script(HEADER + proposal + NOISE)
    assert run(handle(io, SUPPORTED)) == "/noise"
    assert io.written == [HEADER + NOT_AVAILABLE, NOISE]


def test_a_tls_hello_is_no_proposal_even_with_a_newline_in_its_place() -> None:
    hello = bytes.fromhex("16030100d6010000d20303") + b"x" * 11 + b"\n" + bytes(200)
    with pytest.raises(ProtocolNotSupported, match="begin a TLS handshake") as caught:
        run(handle(Script(HEADER + TLS + hello), ("/noise",)))
    assert caught.value.protocols == ("/tls/1.0.0",)


def test_responder_takes_the_64th_proposal() -> None:
    io = Script(HEADER + TLS * 63 + NOISE)
    assert run(handle(io, SUPPORTED)) == "/noise"


def test_responder_ends_endless_proposals() -> None:
    io = Script(HEADER + TLS * 65 + NOISE)
    with pytest.raises(NegotiationError):
        run(handle(io, SUPPORTED))
    assert b"".join(io.written) == HEADER + NOT_AVAILABLE * 64


@looped
async def test_responder_leaves_no_reader_behind_when_it_is_cancelled() -> None:
    async with connected() as (mailbox, theirs):
        task = asyncio.create_task(handle(mailbox, SUPPORTED))
        theirs.send(HEADER)
        assert await received(theirs, 20) == HEADER
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        theirs.send(b"rest")
        assert await mailbox.read_exactly(4) == b"rest"


# -- bad input ---------------------------------------------------------------------------------

Role = Callable[[Any], Awaitable[str]]


def initiate(io: Any) -> Awaitable[str]:
    """select, as far as one proposal goes."""
    return select(io, ["/noise"])


def respond(io: Any) -> Awaitable[str]:
    """handle, for two protocols."""
    return handle(io, SUPPORTED)


ROLES = pytest.mark.parametrize("role", [initiate, respond])
BROKEN = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": bytes.fromhex("160301020001000001fc0303") + bytes(20),
    "header of another version": b"\x13/multistream/2.0.0\n" + NOISE,
    "no header": NOISE * 4,
    "length zero": HEADER + bytes.fromhex("00") + NOISE,
    "length over 1024": HEADER + bytes.fromhex("8108"),
    "length of three bytes": HEADER + bytes.fromhex("808001"),
    "padded length": HEADER + bytes.fromhex("8700") + NOISE[1:],
    "no newline": HEADER + NOISE[:-1] + b"\r" + NOISE,
}


@ROLES
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_messages_end_the_negotiation(role: Role, data: bytes) -> None:
    with pytest.raises(NegotiationError) as caught:
        run(role(Script(data)))
    assert type(caught.value) is NegotiationError
    assert caught.value.__cause__ is None, "found by what it says, not by the end of input"


@ROLES
def test_length_is_refused_before_the_body_is_read(role: Role) -> None:
    io = Script(HEADER + bytes.fromhex("8108") + TAIL)
    with pytest.raises(NegotiationError):
        run(role(io))
    assert len(io.left) >= len(TAIL) - 2, "a shortest answer was read, and no more"


@ROLES
@pytest.mark.parametrize("end", range(28))
def test_end_of_input_is_a_failure_and_not_a_refusal(role: Role, end: int) -> None:
    with pytest.raises(NegotiationError) as caught:
        run(role(Script((HEADER + NOISE)[:end])))
    assert type(caught.value) is NegotiationError


@ROLES
@looped
async def test_broken_connection_is_reported_as_such(role: Role) -> None:
    async with connected() as (mailbox, _):
        task = asyncio.ensure_future(role(mailbox))
        await asyncio.sleep(0)
        mailbox.abort()
        with pytest.raises(ConnectionClosed):
            await task


@pytest.mark.parametrize(
    "answer",
    [TLS, encode("/noise/2"), encode("/nois"), bytes.fromhex("04fffe310a"), encode("na "), encode("ls")],
    ids=["other", "longer", "shorter", "not UTF-8", "padded na", "ls"],
)
def test_initiator_refuses_an_answer_that_is_neither_echo_nor_na(answer: bytes) -> None:
    with pytest.raises(NegotiationError) as caught:
        run(select(Script(HEADER + answer + NOISE), ["/noise"]))
    assert type(caught.value) is NegotiationError


@looped
async def test_peer_that_trickles_is_left_to_the_callers_deadline() -> None:
    async with connected() as (mailbox, theirs):
        theirs.send(HEADER[:7])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await handle(mailbox, SUPPORTED)
        theirs.send(HEADER[7:] + NOISE)
        assert await handle(mailbox, SUPPORTED) == "/noise"


# -- the first wrong byte ----------------------------------------------------------------------


def wrong_beginnings(message: bytes) -> list[bytes]:
    """Each proper beginning of `message`, and a byte that does not follow it."""
    return [message[:at] + bytes([message[at] ^ 1]) for at in range(len(message))]


@ROLES
@pytest.mark.parametrize("data", [b"/THIS_IS_WRONG\n", b"\n", *wrong_beginnings(HEADER)])
@looped
async def test_a_wrong_header_ends_the_negotiation_at_its_first_wrong_byte(role: Role, data: bytes) -> None:
    async with connected() as (mailbox, theirs):
        theirs.send(data)  # and no more: the peer waits
        with pytest.raises(NegotiationError):
            async with asyncio.timeout(seconds(5)):
                await role(mailbox)


@pytest.mark.parametrize("answer", wrong_beginnings(encode("/noise"))[1:])
@pytest.mark.parametrize("is_lazy", [False, True])
@looped
async def test_a_wrong_answer_ends_the_negotiation_at_its_first_wrong_byte(
    is_lazy: bool, answer: bytes
) -> None:
    async with connected() as (mailbox, theirs):
        theirs.send(HEADER + answer)
        negotiation: Awaitable[object]
        if is_lazy:
            propose(mailbox, "/noise")
            negotiation = mailbox.read_exactly(1)
        else:
            negotiation = select(mailbox, ["/noise"])
        with pytest.raises(NegotiationError):
            await asyncio.wait_for(negotiation, seconds(5))


# -- what errors say ---------------------------------------------------------------------------

HELLO = bytes.fromhex("160301020001000001fc0303") + bytes(20)


def failure(negotiation: Awaitable[str]) -> NegotiationError:
    with pytest.raises(NegotiationError) as caught:
        run(negotiation)
    return caught.value


@pytest.mark.parametrize(
    "answers", [b"", HEADER, HEADER + b"nonsense", HEADER + NOT_AVAILABLE * 2, b"GET / HTTP"]
)
def test_an_initiators_error_names_the_step_and_what_was_proposed(answers: bytes) -> None:
    error = failure(select(Script(answers), ["/noise", "/tls/1.0.0"], "security negotiation"))
    assert error.stage == "security negotiation"
    assert str(error).startswith("security negotiation: ")
    assert "/noise, /tls/1.0.0" in str(error)


@pytest.mark.parametrize(
    "proposals", [b"", HEADER, HELLO, HEADER + TLS, HEADER + TLS + HELLO, HEADER + TLS * 65]
)
def test_a_responders_error_names_the_step(proposals: bytes) -> None:
    error = failure(handle(Script(proposals), SUPPORTED, "security negotiation"))
    assert error.stage == "security negotiation"
    assert str(error).startswith("security negotiation: ")


@ROLES
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (HELLO, "begin a TLS handshake"),
        (b"GET / HTTP/1.1\r\n\r\n", "begin an HTTP"),
        (b"SSH-2.0-x\r\n", "begin an SSH"),
    ],
)
def test_a_peer_that_speaks_something_known_is_told_by_name(role: Any, data: bytes, words: str) -> None:
    assert words in str(failure(role(Script(data))))


@pytest.mark.parametrize(
    ("behind", "words"),
    [
        (b"", ""),
        (HELLO, "begin a TLS handshake"),
        (bytes.fromhex("0020") + bytes(32), "0 bytes"),
    ],
    ids=["end", "TLS", "noise"],
)
def test_a_lazy_peer_whose_proposal_is_refused_is_told_as_that(behind: bytes, words: str) -> None:
    error = failure(handle(Script(HEADER + encode("/tls/1.0.0") + behind), {"/yamux/1.0.0"}))
    assert isinstance(error, ProtocolNotSupported)
    assert (error.protocols, error.by_peer) == (("/tls/1.0.0",), True)
    assert words in str(error)


PIECES = st.sampled_from([HEADER, NOISE, TLS, NOT_AVAILABLE, b"\0", b"\x80", b"\x08", b"/", b"\n", b"\xff"])


@ROLES
@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=8).map(b"".join)), st.booleans())
def test_any_input_agrees_or_fails_with_a_typed_error(role: Role, data: bytes, with_header: bool) -> None:
    io = Script(HEADER + data if with_header else data)
    try:
        assert asyncio.run(role(io)) in SUPPORTED
    except NegotiationError:
        pass
