"""The first inputs of each target, made from the vectors of the tests; and the corpus beside them.

Goes out: bytes. `corpora/NAME.zip` has what the fuzzer found beyond these seeds, each input a member.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import key_vectors
import multiaddr_vectors
import record_vectors
from _fast import websocket_frames as ws
from _fast.chains import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WU, data, frame
from _fast.mplex_chain import CLOSE_I, MSG_I, NEW, RESET_I, msg
from p2pcore._fast.chain.multistream import HEADER, NOT_AVAILABLE
from p2pcore.pb.circuit_pb2 import HopMessage, StopMessage
from p2pcore.pb.identify_pb2 import Identify
from p2pcore.pb.noise_pb2 import NoiseHandshakePayload
from p2pcore.pb.plaintext_pb2 import Exchange
from p2pcore.values.keys import PrivateKey
from security import noise_vectors, tls_vectors

CORPORA = Path(__file__).parent / "corpora"
KEYS = [key_vectors.ED25519, key_vectors.SECP256K1, key_vectors.ECDSA, key_vectors.RSA]
INITIATOR = PrivateKey.from_seed(key_vectors.INITIATOR.seed)
ADDR = bytes.fromhex(multiaddr_vectors.VECTORS[4][1])


def corpus(name: str) -> dict[str, bytes]:
    """The inputs of a target that are kept, by their names."""
    kept = {_name(each): each for each in SEEDS[name]()}
    path = CORPORA / f"{name}.zip"
    if path.exists():
        with zipfile.ZipFile(path) as file:
            kept |= {each: file.read(each) for each in file.namelist()}
    return kept


def keep(name: str, inputs: Iterable[bytes]) -> int:
    """Writes the corpus of a target: `inputs` but for the seeds. Returns: bytes of the file."""
    seeds = set(SEEDS[name]())
    path = CORPORA / f"{name}.zip"
    CORPORA.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for each in sorted(set(inputs) - seeds):
            file.writestr(zipfile.ZipInfo(_name(each)), each, zipfile.ZIP_DEFLATED)
    return path.stat().st_size


def _name(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()[:12]


def _hex(*texts: str) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def _multiaddr() -> list[bytes]:
    return _hex(*(each[1] for each in multiaddr_vectors.VECTORS))


def _multiaddr_text() -> list[bytes]:
    return [each[0].encode() for each in multiaddr_vectors.VECTORS]


def _peer_id() -> list[bytes]:
    texts = [text.encode() for key in KEYS for text in (key.base58, key.base32, key.base36)]
    long = [b"m" + b"A" * 216, b"z" + b"1" * 161]  # 162 bytes, 161 bytes: base58 takes 160
    return [*texts, *_hex(*(key.multihash for key in KEYS)), *long]


def _keys() -> list[bytes]:
    return _hex(*(key.public for key in KEYS), *(key.private for key in KEYS[:3]))


def _key_file() -> list[bytes]:
    made = [PrivateKey.from_protobuf(bytes.fromhex(key.private)) for key in KEYS]
    forms = ("protobuf", "base64", "hex", "pem", "der")
    files = [b"\0" + each.to_form(form) for each in made[:2] for form in forms]
    files += [
        b"\0" + each.public_key.to_pem().encode() for each in made[2:]
    ]  # RSA: a private one takes 100 ms
    psk = b"/key/swarm/psk/1.0.0/\n"
    return [*files, psk + b"/base16/\n" + b"ab" * 32, psk + b"/bin/\n" + bytes(32), b"\1" + bytes(32)]


def _envelope() -> list[bytes]:
    vectors = (record_vectors.GO, record_vectors.OWN, record_vectors.LEGACY)
    return _hex(*(text for each in vectors for text in (each.envelope, each.payload)))


def _identify() -> list[bytes]:
    message = Identify(
        protocolVersion=b"ipfs/0.1.0",
        agentVersion=b"agent",
        publicKey=INITIATOR.public_key.to_protobuf(),
        listenAddrs=[ADDR, ADDR],
        observedAddr=ADDR,
        protocols=[b"/ipfs/ping/1.0.0", b"/ipfs/id/1.0.0"],
        signedPeerRecord=bytes.fromhex(record_vectors.OWN.envelope),
    ).SerializeToString()
    one = Identify(agentVersion=b"x").SerializeToString()
    long = bytes((len(message) & 127 | 128, len(message) >> 7)) + message
    return [long, bytes((len(one),)) + one, long + bytes((len(one),)) + one]


def _relay() -> list[bytes]:
    hop = HopMessage(type=2, status=100)  # type: ignore[arg-type]
    hop.reservation.expire = 1 << 31
    hop.reservation.addrs.append(ADDR)
    hop.limit.duration = 120
    hop.limit.data = 1 << 17
    connect = HopMessage(type=1)  # type: ignore[arg-type]
    connect.peer.id = INITIATOR.peer_id().to_bytes()
    stop = StopMessage(type=0)  # type: ignore[arg-type]
    stop.peer.id = connect.peer.id
    bodies = [each.SerializeToString() for each in (hop, connect, stop)]
    return [*bodies, *(bytes((len(body),)) + body for body in bodies if len(body) < 128)]


def _multistream() -> list[bytes]:
    def line(text: bytes) -> bytes:
        return bytes((len(text) + 1,)) + text + b"\n"

    yamux, noise = line(b"/yamux/1.0.0"), line(b"/noise")
    talks = [
        HEADER + yamux + b"more",
        HEADER + line(b"/other") + noise,
        HEADER + NOT_AVAILABLE + noise,
        HEADER + HEADER + yamux + b"answer",
        HEADER + NOT_AVAILABLE * 3,
        b"GET / HTTP/1.1\r\n\r\n",
    ]
    return [bytes((role,)) + talk for role in range(3) for talk in talks]


def _peek() -> list[bytes]:
    return [HEADER + b"\x07/noise\n", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01", bytes(24)]


def _http() -> list[bytes]:
    key = b"AAAAAAAAAAAAAAAAAAAAAA=="
    ask = b"GET /p HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    ask += b"Sec-WebSocket-Key: " + key + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    answer += b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n"
    frames = ws.frame(b"hello", mask=ws.MASK), ws.frame(b"hello")
    plain = b"POST /x HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc"
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    return [
        b"\0" + ask + frames[0],
        b"\1" + answer + frames[1],
        b"\1" + interim + answer,
        b"\2" + plain,
        b"\0" + plain,
        b"\1HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    ]


def _websocket() -> list[bytes]:
    out = []
    for role, mask in ((b"\0", ws.MASK), (b"\1", None)):
        for raw in (
            ws.frame(b"hello", mask=mask),
            ws.frame(b"one", fin=False, mask=mask) + ws.frame(b"two", ws.CONTINUATION, mask=mask),
            ws.frame(b"beat", ws.PING, mask=mask) + ws.frame(b"", ws.PONG, mask=mask),
            ws.frame(bytes(200), mask=mask) + ws.close(1000, b"bye", mask),
            ws.frame(b"text", ws.TEXT, mask=mask),
        ):
            out.append(role + raw)
    return out


def _noise() -> list[bytes]:
    frames = _hex(noise_vectors.FRAME1)
    payload = NoiseHandshakePayload(
        identity_key=INITIATOR.public_key.to_protobuf(),
        identity_sig=INITIATOR.sign(
            b"noise-libp2p-static-key:" + bytes.fromhex(noise_vectors.STATIC_PUBLICS[0])
        ),
    )
    payload.extensions.stream_muxers.append(b"/yamux/1.0.0")
    return [*(role + raw for raw in frames for role in (b"\0", b"\1")), b"\x80" + payload.SerializeToString()]


def _noise_records() -> list[bytes]:
    return [b"\0\5hello\4\5again", b"\2\4bare\0\1x", b"\0\0\3\6\0\4junk", b"\xf0\xff" + bytes(255)]


def _certificates() -> list[bytes]:
    return _hex(*(each.der for each in tls_vectors.CERTIFICATES))


def accepted() -> list[bytes]:
    """The certificates that are valid."""
    return [bytes.fromhex(each.der) for each in tls_vectors.CERTIFICATES if each.peer is not None]


def _tls() -> list[bytes]:
    alert = b"\x15\x03\x03\x00\x02\x02\x28"
    return [role + raw for role in (b"\0", b"\1") for raw in (alert, b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")]


def _tls_records() -> list[bytes]:
    return [
        b"\0\5hello\0\5again",
        b"\1\2\1\0",
        b"\0\1x\2\5\x18\0\0\1\0\0\1y",
        b"\2\5\x18\0\0\1\1",
        b"\1\2\2\x14",
        b"\3\1z\xff\3raw",
    ]


def _plaintext() -> list[bytes]:
    body = Exchange(
        id=INITIATOR.peer_id().to_bytes(), pubkey=INITIATOR.public_key.to_protobuf()
    ).SerializeToString()
    return [b"\0" + bytes((len(body),)) + body + b"after", b"\1" + bytes((len(body),)) + body]


def _pnet() -> list[bytes]:
    nonce = bytes(24)
    opening = HEADER + b"\x07/noise\n"
    return [
        b"\0" + nonce + opening,
        b"\0" + nonce + b"\x13/0\n\x07/noise\n",  # begins as the header does
        b"\1" + bytes(60),
        b"\1" + opening,
        b"eam/1" + b"\xff" * 7 + b".\x07\n\xff.0/0noise\n",  # another key, and yet one byte of the header
    ]


def _yamux() -> list[bytes]:
    talks = [
        frame(WU, SYN, 1) + data(1, b"hello") + frame(WU, FIN, 1),
        data(1, b"hi", SYN) + frame(WU, RST, 1) + frame(WU, SYN, 1) + data(1, b"again"),
        frame(PING, SYN, 0, 7) + frame(PING, ACK, 0, 1) + frame(GO_AWAY, 0, 0, 0),
        frame(WU, ACK, 2, 100) + data(2, b"answer", FIN) + frame(WU, ACK | RST, 4, 0x1002),
        b"".join(frame(WU, SYN, id) for id in range(1, 25, 2)),
        frame(DATA, 0, 9, 5) + b"stray",
    ]
    return [bytes((first,)) + talk for first in (0, 6, 10, 128) for talk in talks]


def _mplex() -> list[bytes]:
    talks = [
        msg(NEW, 1, b"name") + msg(MSG_I, 1, b"hello") + msg(CLOSE_I, 1),
        msg(NEW, 1) + msg(MSG_I, 1, b"a") + msg(RESET_I, 1) + msg(NEW, 1) + msg(MSG_I, 1, b"b"),
        b"".join(msg(NEW, id) for id in range(12)),
        msg(1, 0, b"answer") + msg(3, 0) + msg(5, 1),
        msg(NEW, 0, b"a name that does not come whole")[:9],
    ]
    return [bytes((first,)) + talk for first in (0, 6, 10, 128) for talk in talks]


def _rpc() -> list[bytes]:
    heads = _hex("00 03 000005dc 00000002", "01 03 00000000 00000000", "00 00 00000000 00000000")
    answers = _hex(
        *("00 00000001 03", "01 00000003 746561 02 00000000", "03 00000007 05 6e6f20746561"),
        *("04 00000000", "02 00000001 00", "03 00000000", "03 ffffffff", "00 00000101", "00 00000004 01"),
    )
    return [*heads, *answers]


def _pair() -> list[bytes]:
    flow = bytes(
        (0, 0, 0, 11, 0, 0, 1, 0, 9, 9, 0, 3, 10, 1, 2, 11, 0, 0, 2, 1, 9, 1, 1, 5, 11, 0, 0, 2, 0, 9)
    )
    end = bytes((4, 0, 0, 3, 1, 0, 11, 0, 0))
    again = bytes((12, 1, 8 + 1, 10, 1, 0, 12, 1, 3 << 3 | 1, 12, 1, 8 + 1, 10, 1, 0))
    again += bytes((3, 1, 0, 6, 1, 0, 11, 0, 0))
    number = bytes((12, 0, 1, 10, 0, 0, 12, 0, 6 << 3 | 1, 12, 0, 1, 10, 0, 0, 6, 0, 0, 11, 0, 0))
    return [bytes((kind,)) + program for kind in (0, 1) for program in (flow, flow + end, again, number)]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "multiaddr": _multiaddr,
    "multiaddr_text": _multiaddr_text,
    "peer_id": _peer_id,
    "keys": _keys,
    "key_file": _key_file,
    "envelope": _envelope,
    "identify": _identify,
    "relay": _relay,
    "multistream": _multistream,
    "peek": _peek,
    "http": _http,
    "websocket": _websocket,
    "noise": _noise,
    "noise_records": _noise_records,
    "tls": _tls,
    "tls_certificate": _certificates,
    "tls_records": _tls_records,
    "plaintext": _plaintext,
    "pnet": _pnet,
    "yamux": _yamux,
    "mplex": _mplex,
    "pair": _pair,
    "rpc": _rpc,
}
