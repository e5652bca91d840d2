"""Private networks: key files, fingerprints, and the keystream layer byte for byte.

Comes in: the vectors of the sheet connection-upgrade (section 4), key files with every fault. Goes out: the
same bytes, errors that name the line and never the key.
"""

from __future__ import annotations

import asyncio
import base64
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from nacl.bindings import crypto_secretbox

from _fast.chains import Cable
from harness import cuts, looped, settle
from p2pcore import PSK, Host, WrongNetworkKey, errors, limits
from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.crypto.pnet import PnetLayer, salsa20
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore.security.pnet import PrivateNetwork

KEY = bytes.fromhex("dffb7e3135399a8b1612b2aaca1c36a3a8ac2cd0cca51ceeb2ced87d308cac6d")
NONCE = bytes.fromhex("000102030405060708090a0b0c0d0e0f1011121314151617")
OTHER_NONCE = bytes(range(200, 224))
KEYSTREAM = bytes.fromhex(
    "8bb75ecb5a07c857e59808e635862c58bafccb8ae23d680ac4f6b2d93f1bab34"
    "4f5f1bcab299bc14629b1731cc22ed87a840c223a516b63984de74df6b217eec"
)
HEADER = b"\x13/multistream/1.0.0\n"
OPENING = bytes.fromhex("132f6d756c746973747265616d2f312e302e300a072f6e6f6973650a")
ON_THE_WIRE = bytes.fromhex(
    "000102030405060708090a0b0c0d0e0f1011121314151617989833be3673a12491ea6d8758a91d768ad2fb80e5120665ad85d7d3"
)
FILE = bytes.fromhex("2f6b65792f737761726d2f70736b2f312e302e302f0a2f6261736531362f0a") + KEY.hex().encode()


def keystream(n: int) -> bytes:
    """Of KEY and NONCE: the vector, and behind byte 32 what secretbox, an independent one, encrypts with."""
    return (KEYSTREAM[:32] + crypto_secretbox(bytes(n), NONCE, KEY)[16:])[:n]


def said(data: bytes, key: bytes, nonce: bytes) -> bytes:
    """What a peer with that key puts on the wire."""
    cable, box, _ = protected(key, nonce)
    box.write(data)
    return cable.sent()


# -- key files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        FILE,
        FILE + b"\n",
        FILE.replace(b"\n", b"\r\n") + b"\r\n",
        FILE[: -len(KEY) * 2] + KEY.hex().upper().encode() + b"\n",
        b"/key/swarm/psk/1.0.0/\n/base64/\n" + base64.b64encode(KEY) + b"\n",
        b"/key/swarm/psk/1.0.0/\r\n/base64/\r\n" + base64.b64encode(KEY) + b"\r\n",
        b"/key/swarm/psk/1.0.0/\n/bin/\n" + KEY,
        b"/key/swarm/psk/1.0.0/\r\n/bin/\r\n" + KEY + b"\r\n",
    ],
)
def test_a_key_file_in_every_encoding(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "swarm.key"
    path.write_bytes(data)
    assert PSK.parse(data).key == PSK.read(path).key == PSK.of(str(path)).key == PSK.of(data).key == KEY


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", 1),
        (FILE.replace(b"1.0.0", b"2.0.0"), 1),
        (b" " + FILE, 1),
        (FILE.replace(b"/base16/", b"/base32/"), 2),
        (FILE.split(b"\n")[0], 2),
        (FILE[:-1], 3),
        (FILE[:-2], 3),
        (FILE + b"00", 3),
        (FILE[:-2] + b"zz", 3),
        (FILE + b"\nmore", 3),
        (FILE[:31], 3),
        (b"/key/swarm/psk/1.0.0/\n/base64/\n" + KEY.hex().encode(), 3),
        (b"/key/swarm/psk/1.0.0/\n/base64/\n" + base64.b64encode(KEY)[:-1], 3),
        (b"/key/swarm/psk/1.0.0/\n/bin/\n" + KEY[:-1], 3),
        (b"/key/swarm/psk/1.0.0/\n/bin/\n" + KEY + b"x", 3),
    ],
)
def test_a_bad_key_file_names_the_line_and_never_the_key(data: bytes, line: int) -> None:
    with pytest.raises(errors.IdentityError) as caught:
        PSK.parse(data)
    text = repr(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert f"line {line} " in text
    for secret in (KEY.hex()[:16], KEY.hex()[-16:-2], base64.b64encode(KEY).decode()[:10]):
        assert secret not in text


def test_text_from_the_system_that_is_no_text_is_a_bad_key_like_any_other() -> None:
    """An argument that is not UTF-8 has lone surrogates; an error of encoding would show the whole text."""
    with pytest.raises(errors.IdentityError, match="line 3") as caught:
        PSK.from_text("/key/swarm/psk/1.0.0/ /base16/ " + KEY.hex()[:-2] + "\udce2")
    assert KEY.hex()[:16] not in repr(caught.value)


def test_a_file_that_is_no_key_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(FILE + bytes(10 * limits.MAX_PSK_FILE_BYTES))
    with pytest.raises(errors.IdentityError, match=str(limits.MAX_PSK_FILE_BYTES)):
        PSK.read(path)
    with pytest.raises(FileNotFoundError):
        PSK.read(tmp_path / "none")


def test_a_key_has_32_bytes_and_is_never_shown() -> None:
    for size in (0, 31, 33):
        with pytest.raises(errors.IdentityError):
            PSK(bytes(size))
    psk = PSK.of(KEY)
    assert PSK.of(psk) is psk
    assert psk == PSK(KEY) != PSK(bytes(32))
    assert KEY.hex()[:8] not in repr(psk)
    assert repr(KEY)[2:12] not in repr(psk)
    assert pickle.loads(pickle.dumps(psk)) == psk


TEXTS = {
    "hex": KEY.hex(),
    "HEX": KEY.hex().upper(),
    "0x": "0x" + KEY.hex(),
    "hex and a newline": KEY.hex() + "\n",
    "base64": base64.b64encode(KEY).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(KEY).decode(),
    "a key file": FILE.decode(),
    "a key file in base64": f"/key/swarm/psk/1.0.0/\n/base64/\n{base64.b64encode(KEY).decode()}\n",
    "a key file, CRLF": FILE.decode().replace("\n", "\r\n"),
    "a key file in one line": FILE.decode().replace("\n", " "),
    "a key file in a variable": FILE.decode().replace("\n", "\\n"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_a_key_is_a_key(name: str) -> None:
    assert PSK.of(TEXTS[name]).key == KEY
    assert PSK.of(TEXTS[name].encode()).key == KEY
    PrivateNetwork(PSK.of(TEXTS[name]))


def test_a_path_that_could_be_a_key_is_a_path_when_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(KEY.hex()).write_bytes(PSK(bytes(32)).encode())
    assert PSK.of(Path(KEY.hex())).key == bytes(32)
    assert PSK.of(KEY.hex()).key == KEY


def test_a_key_file_may_begin_with_a_byte_order_mark() -> None:
    assert PSK.parse(b"\xef\xbb\xbf" + FILE).key == KEY


@pytest.mark.parametrize(
    "text",
    [
        KEY.hex()[:-1],
        KEY.hex() + "00",
        KEY.hex()[:-1] + "x",
        "'" + KEY.hex() + "'",
        KEY.hex(":"),
        base64.b64encode(KEY).decode().rstrip("="),
        base64.b64encode(KEY + b"x").decode(),
        FILE.decode()[:-2],
        FILE.decode().replace("/base16/", "/base58/"),
        "\n" + FILE.decode().replace("1.0.0", "2.0.0"),
    ],
)
def test_a_mistyped_key_is_not_shown(text: str) -> None:
    for give in (PSK.of, lambda key: Host(psk=key), lambda key: PSK.of(key.encode())):
        with pytest.raises((errors.IdentityError, OSError)) as caught:
            give(text)
        told, seen = "", caught.value
        while seen is not None:
            told += "".join(traceback.format_exception_only(seen)) + repr(seen) + repr(vars(seen))
            seen = seen.__cause__ or seen.__context__
        for secret in (
            KEY.hex()[:12],
            KEY.hex(":")[:12],
            KEY.hex()[-16:-2],
            base64.b64encode(KEY).decode()[:10],
        ):
            assert secret not in told


def test_new_keys_differ_and_are_written_as_all_read_them() -> None:
    one, two = PSK.generate(), PSK.generate()
    assert one != two
    assert PSK.parse(one.encode()) == one
    assert PSK(KEY).encode() == FILE + b"\n"


@pytest.mark.parametrize(
    ("key", "fingerprint"),
    [
        (KEY.hex(), "b0e010a0aabd8fcfa4b1cdf9280dc513"),
        (
            "6189c5cf0b87fb800c1a9feeda73c6ab5e998db48fb9e6a978575c770ceef683",
            "45fc986bbc9388a11d939df26f730f0c",
        ),
    ],
)
def test_fingerprints_are_the_published_ones(key: str, fingerprint: str) -> None:
    assert PSK(bytes.fromhex(key)).fingerprint == fingerprint


def test_salsa20_checks_its_arguments() -> None:
    for key, nonce, n in ((b"", bytes(8), 1), (KEY, bytes(7), 1), (KEY, bytes(8), -1), (KEY, bytes(8), 1025)):
        with pytest.raises(ValueError):
            salsa20(key, nonce, n)


def test_a_libsodium_without_the_cipher_is_said_plainly() -> None:
    code = """
import ctypes
real = ctypes.CDLL
class Without(real):
    def __getitem__(self, name):
        if "xsalsa20" in name:
            raise AttributeError(name)
        return super().__getitem__(name)
ctypes.CDLL = Without
try:
    import p2pcore._fast.crypto.pnet
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "crypto_stream_xsalsa20_xor_ic" in done.stdout
    assert "PyNaCl" in done.stdout


# -- the layer -----------------------------------------------------------------------------------------


def protected(key: bytes = KEY, nonce: bytes = NONCE) -> tuple[Cable, Mailbox, PnetLayer]:
    cable = Cable()
    box = cable.mailbox
    layer = PrivateNetwork(PSK(key), lambda n: nonce[:n]).protect(box)
    return cable, box, layer


@looped
async def test_the_first_bytes_on_the_wire_are_the_vector() -> None:
    cable, box, _ = protected()
    box.write(OPENING)
    assert cable.sent() == ON_THE_WIRE


@looped
async def test_the_keystream_is_the_vector_however_it_is_cut() -> None:
    for chunks in cuts(bytes(64)):
        cable, box, _ = protected()
        for chunk in chunks:
            box.write(chunk)
        assert cable.sent() == NONCE + KEYSTREAM


@given(st.lists(st.integers(0, 300), max_size=20), st.integers(0, 200_000))
@settings(max_examples=60, deadline=None)
@looped
async def test_what_is_sent_is_the_data_under_the_keystream(sizes: list[int], long: int) -> None:
    cable, box, _ = protected()
    got = bytearray()
    for size in [*sizes, long, *sizes]:
        box.write(b"\xff" * size)
        got += cable.sent()
        while cable.queue:
            cable.drain()
            got += cable.sent()
    total = 2 * sum(sizes) + long
    wanted = NONCE + bytes(byte ^ 0xFF for byte in keystream(total))
    assert bytes(got) == wanted


@looped
async def test_the_nonce_leaves_with_the_first_bytes_or_alone_before_any_wait() -> None:
    cable, _, _ = protected()
    assert cable.sent() == b""
    await settle()
    assert cable.sent() == NONCE
    cable, box, _ = protected()
    box.write(OPENING)
    await settle()
    assert cable.sent() == ON_THE_WIRE


@looped
async def test_received_bytes_are_the_data_wherever_they_are_cut() -> None:
    for chunks in cuts(ON_THE_WIRE):
        cable, box, layer = protected(nonce=OTHER_NONCE)
        cable.deliver(*chunks)
        assert layer.has_agreed
        assert await box.read_exactly(len(OPENING)) == OPENING


@looped
async def test_bytes_that_came_before_the_layer_go_through_it() -> None:
    for at in (0, 10, 24, 30, len(ON_THE_WIRE)):
        cable = Cable()
        cable.deliver(ON_THE_WIRE[:at])
        layer = PnetLayer(KEY, OTHER_NONCE)
        box = cable.mailbox
        box.insert(layer)
        cable.deliver(ON_THE_WIRE[at:])
        assert await box.read_exactly(len(OPENING)) == OPENING


@looped
async def test_megabytes_each_way_arrive_whole() -> None:
    a, box_a, _ = protected()
    b, box_b, _ = protected(nonce=OTHER_NONCE)
    data = HEADER + bytes(range(256)) * 2000
    for box, cable, other, far in ((box_a, a, b, box_b), (box_b, b, a, box_a)):
        box.write(data)
        got = bytearray()
        while True:
            other.deliver(cable.sent())
            if far.num_held:
                got += await far.read_exactly(min(far.num_held, 65536))
            elif cable.queue:
                cable.drain()
            else:
                break
        assert bytes(got) == data


@looped
async def test_the_data_given_to_send_is_not_changed() -> None:
    _, box, _ = protected()
    data = bytes(range(200))
    copy = bytes(bytearray(data))
    box.write(data)
    box.write(data)
    assert data == copy


@looped
async def test_no_block_is_kept_while_idle() -> None:
    cable, box, _ = protected()
    box.write(OPENING)
    cable.deliver(ON_THE_WIRE)
    await box.read_exactly(len(OPENING))
    assert loop_state(cable.loop).num_free_records == 1


@looped
async def test_a_lost_connection_is_reported_as_such() -> None:
    cable, box, _ = protected()
    cable.abort()
    await settle()
    with pytest.raises(errors.ConnectionClosed):
        box.write(b"x")


def test_keys_and_nonces_have_their_lengths() -> None:
    for key, nonce in ((KEY[1:], NONCE), (KEY, NONCE[1:]), (b"", b"")):
        with pytest.raises(ValueError):
            PnetLayer(key, nonce)


# -- strangers -----------------------------------------------------------------------------------------


async def refusal(*chunks: bytes) -> WrongNetworkKey:
    cable, box, layer = protected()
    reading = asyncio.ensure_future(box.read_exactly(20))
    await settle()
    cable.deliver(*chunks)
    assert cable.aborted
    assert not layer.has_agreed
    with pytest.raises(WrongNetworkKey) as caught:
        await reading
    return caught.value


@looped
async def test_another_key_is_seen_at_the_first_byte() -> None:
    wrong = said(OPENING, bytes(32), OTHER_NONCE)
    assert (await refusal(wrong)).speaks is None
    assert (await refusal(wrong[:24], wrong[24:25])).speaks is None


@looped
async def test_no_byte_of_a_stranger_passes_even_if_it_begins_as_the_header_does() -> None:
    """The first byte of one in 256 strangers decrypts to the header's first one."""
    for size in (1, 5, len(HEADER) - 1):
        wrong = said(HEADER[:size] + bytes(60), KEY, OTHER_NONCE)
        for chunks in cuts(wrong):
            cable, box, _ = protected()
            cable.deliver(*chunks)
            assert cable.aborted
            assert box.num_held == 0


@looped
async def test_the_header_passes_once_it_is_whole() -> None:
    cable, box, layer = protected(nonce=OTHER_NONCE)
    for at in range(len(ON_THE_WIRE)):
        cable.deliver(ON_THE_WIRE[at : at + 1])
        come = at + 1 - len(NONCE)
        assert layer.has_agreed == (come >= len(HEADER))
        assert box.num_held == (come if layer.has_agreed else 0)


@pytest.mark.parametrize(
    ("first", "speaks"),
    [
        (OPENING, "libp2p without a network key"),
        (HEADER, "libp2p without a network key"),
        (b"GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"),
        (bytes.fromhex("1603010200010001fc0303") + bytes(40), "TLS"),
        (b"SSH-2.0-OpenSSH_9.6 and some more bytes\r\n", "SSH"),
        (b"220 mail.example.org ESMTP ready\r\n", "text"),
        (bytes(range(200, 250)), None),
    ],
)
@looped
async def test_who_is_no_private_peer_is_told_apart_by_the_first_bytes(
    first: bytes, speaks: str | None
) -> None:
    assert (await refusal(first)).speaks == speaks
    assert (await refusal(*(first[i : i + 1] for i in range(len(first))))).speaks == speaks


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
@looped
async def test_any_bytes_at_all_end_in_a_typed_error_or_wait(raw: bytes) -> None:
    cable, box, _ = protected()
    cable.deliver(raw)
    cable.deliver_eof()
    await settle()
    with pytest.raises((WrongNetworkKey, errors.IncompleteRead)):
        await box.read_exactly(20)
    assert box.num_held == 0
