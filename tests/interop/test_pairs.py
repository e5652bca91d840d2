"""p2pcore against go-libp2p and js-libp2p, each dialing the other, by the contract of interop/README.md.

Comes in: pairs of peers. Goes out: one test per promise and pair; go with js is the control of the peers
themselves.
P2PCORE_INTEROP_SCALE multiplies the bytes moved (1 by default: 64 MiB of echo, 1 GiB of perf each way).
"""

from __future__ import annotations

import os
import re

import pytest
from driver import Pair

pytestmark = pytest.mark.interop

SCALE = float(os.environ.get("P2PCORE_INTEROP_SCALE", "1"))
MIB = 1 << 20

OURS = [("go", "python"), ("python", "go"), ("js", "python"), ("python", "js"), ("python", "python")]
CONTROLS = [("go", "js"), ("js", "go")]


def named(pairs: list[tuple[str, str]]) -> pytest.MarkDecorator:
    """Parameters for the fixture `pair`, in an order that keeps one listener for all tests of a pair."""
    ids = [f"{dialer}-to-{listener}" for dialer, listener in pairs]
    return pytest.mark.parametrize("pair", pairs, ids=ids, indirect=True, scope="module")


every_pair = named(OURS + CONTROLS)
each_of_ours = named(OURS)

AGENTS = {"go": "gopeer/1", "js": "jspeer/1", "python": "p2pcore/"}
SERVED = {
    "/echo/1.0.0",
    "/interop/halfclose/1.0.0",
    "/interop/reset/1.0.0",
    "/interop/stat/1.0.0",
    "/ipfs/id/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/ipfs/ping/1.0.0",
    "/perf/1.0.0",
}
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def scaled(size: int) -> int:
    return max(1, int(size * SCALE))


def peer_id_of(public_key: bytes) -> str:
    """The identity form, for keys of at most 42 bytes; computed apart from p2pcore on purpose."""
    data = bytes((0, len(public_key))) + public_key
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = BASE58[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def bare(address: str) -> str:
    """`address` without a trailing /p2p/ID."""
    return re.sub(r"/p2p/[^/]+$", "", address)


@every_pair
def test_connects_over_noise_and_yamux(pair: Pair) -> None:
    connect = pair.run("ping", n=1)[0]
    assert connect["op"] == "connect"
    assert connect["security"] == "/noise"
    assert connect["muxer"] == "/yamux/1.0.0"


@named([("go", "python"), ("python", "go"), ("python", "python")])
def test_agrees_on_the_muxer_inside_the_handshake(pair: Pair) -> None:
    assert pair.run("ping", n=1)[0]["early"] is True


@every_pair
def test_pings_are_answered_one_after_another(pair: Pair) -> None:
    pings = pair.run("ping", n=50)[1:]
    assert len(pings) == 50
    assert all(line["op"] == "ping" and line["rtt_us"] > 0 for line in pings)


@every_pair
def test_identify_tells_the_dialer_everything(pair: Pair) -> None:
    told = pair.run("identify")[-1]
    address, _, peer_id = pair.running.address.rpartition("/p2p/")
    assert told["peer_id"] == peer_id
    assert peer_id_of(bytes.fromhex(told["public_key"])) == peer_id
    assert told["agent"].startswith(AGENTS[pair.listener])
    assert told["protocol_version"] == "ipfs/0.1.0"
    assert set(told["protocols"]) >= SERVED
    assert told["addrs"] == [address]
    assert told["record_addrs"] == [address]
    assert re.fullmatch(r"/ip4/127\.0\.0\.1/tcp/\d+", bare(told["observed"]))


@every_pair
def test_identify_tells_the_listener_everything(pair: Pair) -> None:
    told = pair.run("identify")[-1]["remote"]
    assert peer_id_of(bytes.fromhex(told["public_key"])) == told["peer_id"]
    assert told["agent"].startswith(AGENTS[pair.dialer])
    assert told["protocol_version"] == "ipfs/0.1.0"
    assert set(told["protocols"]) >= {"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"}
    assert len(told["addrs"]) == 1
    assert re.fullmatch(r"/ip4/127\.0\.0\.1/tcp/\d+", told["addrs"][0])
    assert told["record_addrs"] == told["addrs"]
    assert bare(told["observed"]) == bare(pair.running.address)


@every_pair
def test_every_echoed_byte_comes_back_right(pair: Pair) -> None:
    size = scaled(64 * MIB)
    assert pair.run("echo", bytes=size)[-1] == {"op": "echo", "ok": True, "bytes": size}


@every_pair
@pytest.mark.parametrize("size", [0, 1, 65519, 65520, 262144, 262145])
def test_echo_of_awkward_sizes(pair: Pair, size: int) -> None:
    """Nothing, one byte, a record and a byte more, a window and a byte more."""
    assert pair.run("echo", bytes=size)[-1] == {"op": "echo", "ok": True, "bytes": size}


@each_of_ours
@pytest.mark.slow
@pytest.mark.parametrize("direction", ["up", "down"])
def test_perf_moves_every_byte(pair: Pair, direction: str) -> None:
    result = pair.run(direction, bytes=scaled(1024 * MIB))[-1]
    assert result["op"] == direction
    assert result["MB_s"] > 0


@each_of_ours
def test_small_writes_arrive(pair: Pair) -> None:
    assert pair.run("small", bytes=scaled(MIB), size=100)[-1]["op"] == "small"


@every_pair
def test_a_thousand_streams_at_once(pair: Pair) -> None:
    result = pair.run("streams", c=1000, size=1024)[-1]
    assert (result["ok"], result["c"], result["size"]) == (True, 1000, 1024)


@every_pair
def test_either_side_can_close_its_half_first(pair: Pair) -> None:
    """4 MiB is sixteen windows: a half closed stream still has flow control."""
    assert pair.run("halfclose", bytes=4 * MIB)[-1] == {"op": "halfclose", "ok": True, "bytes": 4 * MIB}


@every_pair
def test_either_side_can_reset_and_the_other_sees_why(pair: Pair) -> None:
    result = pair.run("reset")[-1]
    assert result["ok"] is True
    # js-libp2p neither shows codes nor sends any but 0.
    sent = {"go": True, "python": True, "js": False}
    assert result["remote_code"] == (None if pair.listener == "js" else 66 if sent[pair.dialer] else 0)
    assert result["code"] == (None if pair.dialer == "js" else 77 if sent[pair.listener] else 0)


@each_of_ours
def test_connections_come_and_go(pair: Pair) -> None:
    assert pair.run("conn", n=100, c=10)[-1]["n"] == 100


@each_of_ours
def test_streams_come_and_go(pair: Pair) -> None:
    assert pair.run("stream", n=2000, c=50, size=100)[-1]["n"] == 2000


@each_of_ours
def test_messages_go_there_and_back(pair: Pair) -> None:
    assert pair.run("pingpong", n=1000, c=10, size=100)[-1]["n"] == 1000


@named([("go", "python"), ("python", "python")])
def test_a_listener_forgets_its_connections_and_quits(pair: Pair) -> None:
    pair.run("ping", n=1)
    pair.running.wait_for("conns", 0)
    pair.quit()


@each_of_ours
def test_a_listener_outlives_a_dialer_that_is_killed(pair: Pair) -> None:
    with pair.holding(20) as killed:
        pair.running.wait_for("conns", 20)
        killed.close()
        pair.running.wait_for("conns", 0)
    assert pair.run("echo", bytes=MIB)[-1]["ok"] is True


@named([("go", "python"), ("js", "python"), ("python", "go"), ("go", "js")])
def test_a_listener_with_another_identity_is_refused(pair: Pair) -> None:
    address, _, _ = pair.running.address.rpartition("/p2p/")
    other = f"{address}/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
    assert pair.refuse("ping", other).startswith("ERROR ")
