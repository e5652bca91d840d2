"""TLS records on a real wire: cutting, joining, ends, alerts, key updates, and everything hostile."""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import Any

import pytest
from hypothesis import given, strategies as st
from OpenSSL import SSL

from _fast.chains import KEY_A, KEY_B, Cable
from harness import cuts, looped, settle
from p2pcore._fast.crypto.secure import NoiseChannel, PlainChannel
from p2pcore._fast.crypto.tls import TlsChannel, take_input
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore.errors import ConnectionClosed, HandshakeError, LimitExceeded, P2PError, RemoteProtocolError
from p2pcore.limits import MAX_TLS_CONTROL_RECORDS_PER_S, MAX_TLS_PLAINTEXT_BYTES
from tls_pairs import (
    ALERT,
    CERTIFICATE_REQUEST,
    CLOSE_NOTIFY,
    HANDSHAKE,
    KEY_UPDATE,
    KEY_UPDATE_REQUESTED,
    NUM_TICKETS,
    TICKET,
    USER_CANCELED,
    Sealer,
    advanced,
    connection,
    context,
    opened,
    output,
    records,
    sealed,
    shaken,
)

SIZES = [1, 1000, 16384, 16385, 65280, 65281, 200_000]
VERSIONS = {"1.3": SSL.TLS1_3_VERSION, "1.2": SSL.TLS1_2_VERSION}
ends = pytest.mark.parametrize("is_client", [True, False], ids=["client", "server"])


def seated(
    is_client: bool = False, version: int = SSL.TLS1_3_VERSION, ciphers: bytes = b""
) -> tuple[Cable, Any, SSL.Connection]:
    """A cable with a TlsChannel, the mailbox on top, and the connection of the peer."""
    client, server = shaken(version, ciphers=ciphers)
    ours, theirs = (client, server) if is_client else (server, client)
    cable = Cable()
    box = cable.mailbox
    box.insert(TlsChannel(ours))
    return cable, box, theirs


def by_hand(is_client: bool) -> tuple[Cable, Any, Sealer, Sealer]:
    """As seated; instead of the peer, its sealer, and one that opens what we send."""
    secrets: list[Any] = []
    client, server = shaken(secrets=secrets)
    cable = Cable()
    cable.peer = client, server  # type: ignore[attr-defined]  # pyOpenSSL's keylog callback asks for them
    box = cable.mailbox
    box.insert(TlsChannel(client if is_client else server))
    return cable, box, secrets[0].sealer(not is_client), secrets[0].sealer(is_client)


async def failure(cable: Cable, box: Any) -> BaseException:
    """Why the chain was lost."""
    await settle()
    assert cable.lost
    with pytest.raises(P2PError) as caught:
        await box.read_exactly(1 << 16)
    return caught.value


# -- sending ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS.keys())
@pytest.mark.parametrize("size", SIZES)
@looped
async def test_what_is_written_is_what_openssl_reads(size: int, version: int) -> None:
    cable, box, peer = seated(version=version)
    data = bytes(i * i % 251 for i in range(size))
    box.write(data[: size // 2])
    box.write(data[size // 2 :])
    assert opened(peer, await cable.all_sent()) == data


@looped
async def test_writes_of_one_iteration_are_one_record() -> None:
    cable, box, peer = seated()
    for _ in range(50):
        box.write(b"piece")
    sent = await cable.all_sent()
    assert len(records(sent)) == 1
    assert opened(peer, sent) == b"piece" * 50


@looped
async def test_long_writes_are_full_records() -> None:
    cable, box, _ = seated()
    box.write(bytes(3 * MAX_TLS_PLAINTEXT_BYTES))
    overhead = 5 + 1 + 16
    assert [len(record) for record in records(await cable.all_sent())] == [16384 + overhead] * 3


@looped
async def test_records_that_grow_more_than_there_is_room_for_come_whole() -> None:
    """Those of TLS 1.2 with CBC and a long MAC: 85 bytes each."""
    cable, box, peer = seated(version=SSL.TLS1_2_VERSION, ciphers=b"ECDHE-ECDSA-AES256-SHA384")
    assert peer.get_cipher_name() == "ECDHE-ECDSA-AES256-SHA384"
    data = bytes(i * i % 251 for i in range(65_281))
    box.write(data)
    assert opened(peer, await cable.all_sent()) == data


@looped
async def test_records_of_one_flush_leave_in_one_send(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = functools.partial(socket.socketpair, socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr("_fast.chains.socket.socketpair", pair)
    cable, box, _ = seated()
    box.write(bytes(60_000))
    await settle()
    assert len(records(cable.far.recv(1 << 20))) == 4
    with pytest.raises(BlockingIOError):
        cable.far.recv(1)


@looped
async def test_what_an_upper_cork_flushes_leaves_in_the_same_iteration() -> None:
    cable, box, peer = seated()
    box.insert(NoiseChannel(KEY_A, KEY_B))
    box.write(b"through two corks")
    await asyncio.sleep(0)
    assert len(opened(peer, cable.sent())) == 2 + len(b"through two corks") + 16


@looped
async def test_a_full_socket_gathers_and_loses_nothing() -> None:
    cable, box, peer = seated()
    filling = cable.clog()
    sent = b"".join(bytes([i]) * 30_000 for i in range(5))
    for i in range(5):
        box.write(sent[30_000 * i : 30_000 * (i + 1)])
        await settle()
    assert opened(peer, (await cable.all_sent())[filling:]) == sent


@looped
async def test_an_idle_channel_holds_no_buffer() -> None:
    cable, box, peer = seated()
    state = loop_state(asyncio.get_running_loop())
    box.write(bytes(60_000))
    cable.deliver(sealed(peer, [bytes(60_000)]))
    await cable.all_sent()
    await box.read_exactly(60_000)
    assert state.num_free_records == 2


# -- receiving -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS.keys())
@looped
async def test_received_bytes_may_be_cut_anywhere(version: int) -> None:
    pieces = [b"one", b"two and a half", bytes(400), b"the end"]
    client, _ = shaken(version)
    for chunks in cuts(bytes(len(sealed(client, pieces)))):
        cable, box, peer = seated(version=version)
        data = sealed(peer, pieces)
        for chunk in chunks:
            cable.deliver(data[: len(chunk)])
            data = data[len(chunk) :]
        assert await box.read_exactly(box.num_held) == b"".join(pieces)
        cable.deliver_eof()
        assert await box.read(1) == b""


@pytest.mark.parametrize("size", SIZES)
@looped
async def test_what_openssl_writes_is_what_is_read(size: int) -> None:
    cable, box, peer = seated()
    data = bytes(i * i % 251 for i in range(size))
    cable.deliver(sealed(peer, [data]))
    read = b""
    while len(read) < size:
        read += await box.read(1 << 17)
    assert read == data


@looped
async def test_an_upper_layer_may_answer_while_it_is_fed() -> None:
    """A record behind the answered one must still be read."""
    cable, box, peer = seated()
    box.insert(PlainChannel())
    cable.deliver(sealed(peer, [b"question", b"and more"]))
    box.write(b"answer")
    assert opened(peer, await cable.all_sent()) == b"answer"
    assert await box.read_exactly(16) == b"questionand more"


# -- ends ------------------------------------------------------------------------------------------


@looped
async def test_close_sends_what_was_gathered_then_close_notify_then_the_end() -> None:
    cable, box, peer = seated()
    box.write(b"last words")
    cable.wire.close()
    assert opened(peer, await cable.all_sent()) == b"last words"
    assert peer.get_shutdown() == SSL.RECEIVED_SHUTDOWN
    assert cable.eof_written


def with_tickets() -> tuple[Cable, Any, SSL.Connection]:
    """As seated, at a server's end whose tickets nobody has taken from the connection."""
    client, server = (connection(context(is_server=end), end) for end in (False, True))
    while not advanced(client):
        server.bio_write(output(client))
        advanced(server)
        client.bio_write(output(server))
    server.bio_write(output(client))
    assert advanced(server)
    cable = Cable()
    box = cable.mailbox
    box.insert(TlsChannel(server))
    return cable, box, client


@looped
async def test_what_the_handshake_put_out_last_leaves_in_front_of_the_first_record() -> None:
    cable, box, peer = with_tickets()
    assert await cable.all_sent() == b""
    box.write(b"first")
    sent = await cable.all_sent()
    assert len(records(sent)) == NUM_TICKETS + 1
    assert opened(peer, sent) == b"first"
    box.write(b"second")
    assert opened(peer, await cable.all_sent()) == b"second"


@looped
async def test_what_the_handshake_put_out_last_leaves_in_front_of_the_close_notify() -> None:
    """Left out, it would make the numbers of the records behind it wrong."""
    cable, _, peer = with_tickets()
    cable.wire.close()
    sent = await cable.all_sent()
    assert len(records(sent)) == NUM_TICKETS + 1
    assert opened(peer, sent) == b""
    assert peer.get_shutdown() == SSL.RECEIVED_SHUTDOWN


@looped
async def test_close_notify_is_the_end_of_input_and_nothing_counts_behind_it() -> None:
    cable, box, peer = seated()
    data = sealed(peer, [b"bye"])
    peer.shutdown()
    cable.deliver(data + output(peer) + b"\x17\x03\x03 garbage")
    cable.deliver(b"more garbage")
    assert await box.read_exactly(3) == b"bye"
    assert await box.read(1) == b""
    cable.deliver_eof()
    box.write(b"we may still write")
    assert opened(peer, await cable.all_sent()) == b"we may still write"


@looped
async def test_the_end_of_input_without_close_notify_is_an_end_as_well() -> None:
    cable, box, peer = seated()
    cable.deliver(sealed(peer, [b"all"]))
    cable.deliver_eof()
    assert await box.read_exactly(3) == b"all"
    assert await box.read(1) == b""


@pytest.mark.parametrize("missing", [1, 10, 20, 24])
@looped
async def test_the_end_of_input_inside_a_record_is_an_error(missing: int) -> None:
    cable, box, peer = seated()
    data = sealed(peer, [b"cut"])
    cable.deliver(data[: len(data) - missing])
    cable.deliver_eof()
    error = await failure(cable, box)
    assert isinstance(error, ConnectionClosed)
    assert "inside a TLS record" in str(error)


@looped
async def test_a_lost_chain_says_so() -> None:
    cable, box, _ = seated()
    cable.wire.abort()
    await settle()
    with pytest.raises(ConnectionClosed):
        box.write(b"too late")


@looped
async def test_the_connection_given_to_a_channel_can_be_asked_but_not_used() -> None:
    client, _ = shaken()
    channel = TlsChannel(client)
    assert client.get_protocol_version_name() == "TLSv1.3"
    for use in (lambda: client.bio_write(b"x"), lambda: client.bio_read(1)):
        with pytest.raises(TypeError):
            use()
    assert channel.most > 3 * MAX_TLS_PLAINTEXT_BYTES


@looped
async def test_unread_input_of_a_connection_is_given_back_whole() -> None:
    client, server = shaken()
    data = sealed(client, [b"early", b"bird"])
    server.bio_write(data)
    assert take_input(server) == data
    assert take_input(server) == b""


# -- alerts ----------------------------------------------------------------------------------------


@looped
async def test_a_damaged_record_is_refused_and_the_peer_is_told() -> None:
    cable, box, peer = seated()
    data = bytearray(sealed(peer, [b"secret"]))
    data[-1] ^= 1
    cable.deliver(bytes(data))
    assert isinstance(await failure(cable, box), RemoteProtocolError)
    with pytest.raises(SSL.Error, match="bad record mac"):
        opened(peer, cable.sent())


@looped
async def test_an_alert_before_any_data_is_a_failed_handshake() -> None:
    cable, box, theirs, _ = by_hand(is_client=True)
    cable.deliver(theirs.seal(bytes((2, 42)), ALERT))
    error = await failure(cable, box)
    assert isinstance(error, HandshakeError)
    assert "bad certificate" in str(error)


@looped
async def test_an_alert_behind_data_is_the_peers_error() -> None:
    cable, box, theirs, _ = by_hand(is_client=True)
    cable.deliver(theirs.seal(b"fine") + theirs.seal(bytes((2, 80)), ALERT))
    assert await box.read_exactly(4) == b"fine"
    assert isinstance(await failure(cable, box), RemoteProtocolError)


@ends
@looped
async def test_warnings_that_mean_nothing_are_bounded(is_client: bool) -> None:
    cable, box, theirs, _ = by_hand(is_client)
    cable.deliver(theirs.seal(bytes((1, USER_CANCELED)), ALERT) + theirs.seal(b"on"))
    assert await box.read_exactly(2) == b"on"
    cable.deliver(b"".join(theirs.seal(bytes((1, USER_CANCELED)), ALERT) for _ in range(200)))
    assert isinstance(await failure(cable, box), (RemoteProtocolError, LimitExceeded))


@looped
async def test_close_notify_by_hand_ends_the_input() -> None:
    cable, box, theirs, _ = by_hand(is_client=False)
    cable.deliver(theirs.seal(bytes((1, CLOSE_NOTIFY)), ALERT))
    assert await box.read(1) == b""


# -- post-handshake messages -----------------------------------------------------------------------


@ends
@looped
async def test_key_updates_change_the_keys_of_either_side(is_client: bool) -> None:
    cable, box, theirs, ours = by_hand(is_client)
    cable.deliver(theirs.seal(KEY_UPDATE_REQUESTED, HANDSHAKE))
    theirs.update()
    cable.deliver(theirs.seal(b"new keys"))
    assert await box.read_exactly(8) == b"new keys"
    box.write(b"ours too")
    first, second = records(await cable.all_sent())
    assert ours.open(first) == (HANDSHAKE, KEY_UPDATE)
    ours.update()
    assert ours.open(second) == (23, b"ours too")


@looped
async def test_a_full_flush_behind_a_key_update_overwrites_nothing() -> None:
    """Its record comes on top of those the room in front of the plaintext is meant for."""
    cable, box, theirs, ours = by_hand(is_client=True)
    cable.deliver(theirs.seal(KEY_UPDATE_REQUESTED, HANDSHAKE))
    data = bytes(i * i % 251 for i in range(65_280))
    box.write(data)
    update, *rest = records(await cable.all_sent())
    assert ours.open(update) == (HANDSHAKE, KEY_UPDATE)
    ours.update()
    assert b"".join(ours.open(record)[1] for record in rest) == data


@looped
async def test_tickets_are_ignored() -> None:
    cable, box, theirs, _ = by_hand(is_client=True)
    cable.deliver(theirs.seal(TICKET, HANDSHAKE) + theirs.seal(b"data"))
    assert await box.read_exactly(4) == b"data"


FLOODS = {
    "key updates": (KEY_UPDATE, True),
    "tickets": (TICKET, False),
}


@pytest.mark.parametrize("flood", FLOODS)
@looped
async def test_a_flood_of_records_without_data_ends_the_connection(flood: str) -> None:
    message, changes_keys = FLOODS[flood]
    cable, box, theirs, _ = by_hand(is_client=True)
    data = b""
    for _ in range(MAX_TLS_CONTROL_RECORDS_PER_S + 50):
        data += theirs.seal(message, HANDSHAKE)
        if changes_keys:
            theirs.update()
        data += theirs.seal(b".")
    cable.deliver(data)
    assert isinstance(await failure(cable, box), LimitExceeded)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", 23),
        (CERTIFICATE_REQUEST, HANDSHAKE),
        (b"\x01\0\0\x02no", HANDSHAKE),
        (b"\x01", 20),
        (b"what", 99),
    ],
    ids=["empty", "certificate request", "hello", "change cipher spec", "unknown"],
)
@looped
async def test_records_nobody_may_send_end_the_connection(content: bytes, kind: int) -> None:
    cable, box, theirs, _ = by_hand(is_client=True)
    cable.deliver(b"".join(theirs.seal(content, kind) for _ in range(50)))
    assert isinstance(await failure(cable, box), RemoteProtocolError)


@looped
async def test_padding_is_not_data() -> None:
    cable, box, theirs, _ = by_hand(is_client=False)
    cable.deliver(theirs.seal(b"padded", padding=1000))
    assert await box.read_exactly(box.num_held) == b"padded"


@pytest.mark.parametrize("size", [MAX_TLS_PLAINTEXT_BYTES + 1, 60_000])
@looped
async def test_a_record_with_too_much_data_ends_the_connection(size: int) -> None:
    cable, box, theirs, _ = by_hand(is_client=False)
    cable.deliver(theirs.seal(bytes(size)))
    assert isinstance(await failure(cable, box), RemoteProtocolError)


@looped
async def test_a_header_of_too_long_a_record_is_enough_to_end_the_connection() -> None:
    cable, box, _ = seated()
    cable.deliver(b"\x17\x03\x03\xff\xff")
    assert isinstance(await failure(cable, box), RemoteProtocolError)


@given(st.binary(min_size=1, max_size=300), st.integers(0, 40))
@looped
async def test_any_bytes_end_the_connection_or_wait_for_more(garbage: bytes, at: int) -> None:
    cable, box, peer = seated()
    data = sealed(peer, [b"some", b"data"])
    cable.deliver(data[:at] + garbage)
    await settle()
    assert box.num_held <= 8
    cable.deliver_eof()
    try:
        await box.read_exactly(9)
    except P2PError:
        pass
    else:
        pytest.fail("9 bytes were read of 8 that were sent")
