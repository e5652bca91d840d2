"""`p2pcore addr`: components, both forms, classes; and each malformed address as one line."""

from __future__ import annotations

import json

import pytest
from cli_driver import Cli, assert_fails

TEXT = "/ip4/1.2.3.4/tcp/4001/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
PEER_HEX = "0024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
HEX = "0401020304060fa1a50326" + PEER_HEX


@pytest.mark.parametrize("form", [TEXT, HEX, "0x" + HEX, HEX.upper()])
def test_text_and_hex_lead_to_each_other(cli: Cli, form: str) -> None:
    fields = json.loads(cli.run("addr", form, "--json").out)
    assert (fields["text"], fields["hex"], fields["bytes"]) == (TEXT, HEX, len(HEX) // 2)
    assert fields["components"] == [
        {"code": 4, "name": "ip4", "value": "1.2.3.4", "hex": "0401020304"},
        {"code": 6, "name": "tcp", "value": "4001", "hex": "060fa1"},
        {"code": 421, "name": "p2p", "value": TEXT.rpartition("/")[2], "hex": "a50326" + PEER_HEX},
    ]
    assert (fields["classes"], fields["peer_id"]) == (["public"], TEXT.rpartition("/")[2])


def test_people_get_a_table(cli: Cli) -> None:
    lines = cli.run("addr", "/ip4/127.0.0.1/udp/443/quic-v1").out.splitlines()
    assert lines == [
        "text   /ip4/127.0.0.1/udp/443/quic-v1",
        "hex    047f000001910201bbcd03",
        "bytes  11",
        "class  loopback, private",
        "  code  protocol  value      hex",
        "  4     ip4       127.0.0.1  047f000001",
        "  273   udp       443        910201bb",
        "  461   quic-v1              cd03",
    ]


@pytest.mark.parametrize(
    ("addr", "classes"),
    [
        ("/ip4/10.0.0.1/tcp/1", ["private"]),
        ("/ip6/::1/tcp/1", ["loopback", "private"]),
        ("/ip6/::/tcp/1", ["unspecified"]),
        ("/ip4/8.8.8.8/tcp/1/p2p-circuit", ["public", "relayed"]),
        ("/unix/run/a", []),
    ],
)
def test_classes(cli: Cli, addr: str, classes: list[str]) -> None:
    assert json.loads(cli.run("addr", addr, "--json").out)["classes"] == classes


def test_several_are_one_object_a_line(cli: Cli) -> None:
    out = cli.run("addr", "/ip4/1.2.3.4", "/ip4/1.2.3.5", "--json").out
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["/ip4/1.2.3.4", "/ip4/1.2.3.5"]


@pytest.mark.parametrize(
    ("addr", "text"),
    [
        ("", "1 to 2048 bytes expected"),
        ("/", "at least one component expected"),
        ("zz", "must be text that begins with '/', or hex"),
        ("0xff", "varint"),
        ("/ip4/1.2.3", "ip4 '1.2.3'"),
        ("/tcp/99999", "0..65535"),
        ("/nonsense/1", "nonsense"),
        ("/p2p/xyz", "p2p 'xyz'"),
        ("/ip4/1.2.3.4\x1b[2J", "ip4 '1.2.3.4\\x1b[2J'"),
    ],
)
def test_what_is_malformed_is_one_line(cli: Cli, addr: str, text: str) -> None:
    assert_fails(cli.run("addr", addr), 2, text)
