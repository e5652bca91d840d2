"""`p2pcore psk`, and private networks of `p2pcore listen`."""

from __future__ import annotations

import base64
import json
import stat

import pytest
from cli_driver import Cli, Result, assert_fails

from p2pcore import PSK


def test_a_key_is_made_for_its_owner_alone_and_never_over_another(cli: Cli) -> None:
    made = json.loads(cli.run("psk", "new", "--out", "swarm.key", "--json").out)
    path = cli.directory / "swarm.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().splitlines()[:2] == [b"/key/swarm/psk/1.0.0/", b"/base16/"]
    shown = cli.run("psk", "show", "swarm.key", "--json")
    assert json.loads(shown.out) == {"fingerprint": made["fingerprint"]}
    assert_fails(cli.run("psk", "new", "--out", "swarm.key"), 1, "exists already")


def test_the_fingerprint_is_the_published_one(cli: Cli) -> None:
    key = b"/key/swarm/psk/1.0.0/\n/base16/\n6189c5cf0b87fb800c1a9feeda73c6ab5e998db48fb9e6a978575c770ceef683"
    shown = cli.run("psk", "show", "-", stdin=key)
    assert shown == Result(0, "fingerprint  45fc986bbc9388a11d939df26f730f0c\n", "")


def test_a_new_key_can_be_piped(cli: Cli) -> None:
    made = cli.run("psk", "new").out.encode()
    assert cli.run("psk", "show", "-", stdin=made).status == 0


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"what\n", "line 1 of the key file"),
        (b"/key/swarm/psk/1.0.0/\n/base58/\nx\n", "line 2 of the key file"),
        (b"/key/swarm/psk/1.0.0/\n/base16/\nc0ffee\n", "line 3 of the key file"),
        (b"", "empty"),
    ],
)
def test_a_bad_file_is_named_and_its_line(cli: Cli, content: bytes, text: str) -> None:
    (cli.directory / "bad").write_bytes(content)
    failed = cli.run("psk", "show", "bad")
    assert_fails(failed, 1, text)
    assert "bad: " in failed.err
    assert "c0ffee" not in failed.err
    assert_fails(cli.run("listen", "--psk", "bad"), 1, text)


def test_a_key_in_place_of_a_file_is_a_key_and_is_not_shown(cli: Cli) -> None:
    key = bytes(range(50, 82))
    for text in (key.hex(), base64.b64encode(key).decode()):
        shown = cli.run("psk", "show", text)
        assert shown.out == f"fingerprint  {PSK(key).fingerprint}\n"
        assert "all users of this machine can see" in shown.err
        assert text[:12] not in shown.out + shown.err
    for wrong in (key.hex()[1:], key.hex() + "0", base64.b64encode(key).decode()[:-1]):
        for args in (("psk", "show", wrong), ("listen", "--psk", wrong)):
            failed = cli.run(*args)
            assert failed.status == 1
            assert "characters that may be a key" in failed.err
            assert wrong[:12] not in failed.out + failed.err


def test_a_private_node_talks_to_those_with_its_key_alone(cli: Cli) -> None:
    for name in ("ours", "another"):
        cli.run("psk", "new", "--out", name)
    listener = cli.start("listen", "--psk", "ours")
    addr = listener.line()
    assert cli.run("ping", addr, "-n", "1", "--psk", "ours").status == 0
    assert_fails(cli.run("ping", addr, "-n", "1", "--psk", "another"), 1, "wrong network key")
    # In which words depends on whether the nonce of the private node came before the end of the connection.
    assert_fails(cli.run("ping", addr, "-n", "1"), 1, "cannot connect to")
    assert listener.end() == Result(0, "", "")
