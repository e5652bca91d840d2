"""`p2pcore id`: every key type in every format and back, files nobody else can read, nothing overwritten."""

from __future__ import annotations

import base64
import json
import stat

import pytest
from cli_driver import Cli, assert_fails

from key_vectors import ECDSA, ED25519, RSA, SECP256K1, KeyVector
from p2pcore import KeyType, PrivateKey

VECTORS = {"ed25519": ED25519, "secp256k1": SECP256K1, "ecdsa": ECDSA, "rsa": RSA}


@pytest.mark.parametrize("kind", VECTORS)
def test_new_writes_a_key_that_only_its_owner_can_read(cli: Cli, kind: str) -> None:
    made = cli.run("id", "new", "--type", kind, "--out", "key", "--json")
    assert made.status == 0, made
    fields = json.loads(made.out)
    path = cli.directory / "key"
    key = PrivateKey.from_protobuf(path.read_bytes())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (key.type, fields["type"], fields["file"]) == (KeyType[kind.upper()], kind, "key")
    assert fields["peer_id"] == str(key.peer_id())
    assert fields["public_key"] == key.public_key.to_base64()
    assert "private_key" not in fields


def test_new_prints_a_key_that_has_no_file(cli: Cli) -> None:
    fields = json.loads(cli.run("id", "new", "--json").out)
    assert str(PrivateKey.from_base64(fields["private_key"]).peer_id()) == fields["peer_id"]
    lines = cli.run("id", "new", "--format", "pem").out.splitlines()
    key = PrivateKey.from_pem("\n".join(lines[lines.index("-----BEGIN PRIVATE KEY-----") :]))
    assert str(key.peer_id()) in "\n".join(lines)


def test_new_overwrites_only_with_force(cli: Cli) -> None:
    path = cli.directory / "key"
    path.write_text("precious")
    assert_fails(cli.run("id", "new", "--out", "key"), 1, "key: the file exists already; --force replaces it")
    assert path.read_text() == "precious"
    path.chmod(0o644)
    assert cli.run("id", "new", "--out", "key", "--force", "--format", "base64").status == 0
    PrivateKey.from_base64(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in cli.directory.iterdir()] == ["key"]


@pytest.mark.parametrize("kind", VECTORS)
def test_show_knows_every_form_of_an_id(cli: Cli, kind: str) -> None:
    vector: KeyVector = VECTORS[kind]
    (cli.directory / "key").write_bytes(bytes.fromhex(vector.private))
    (cli.directory / "key").chmod(0o600)
    expected = {
        "peer_id": vector.base58,
        "cid_base32": vector.base32,
        "cid_base36": vector.base36,
        "multihash": vector.multihash,
    }
    shown = cli.run("id", "show", "key", "--json")
    assert shown.err == ""
    fields = json.loads(shown.out)
    assert fields.items() >= expected.items()
    assert fields["type"] == kind
    assert fields["has_private_key"] is True
    assert json.loads(cli.run("id", "show", vector.base36, "--json").out).items() >= expected.items()


@pytest.mark.parametrize("text", [ED25519.base58, ED25519.base32])
def test_show_takes_an_id(cli: Cli, text: str) -> None:
    assert ED25519.base58 in cli.run("id", "show", text).out


def test_show_never_prints_the_private_key(cli: Cli) -> None:
    (cli.directory / "key").write_text(PrivateKey.from_protobuf(bytes.fromhex(ED25519.private)).to_base64())
    for more in ((), ("--json",)):
        out = cli.run("id", "show", "key", *more).out
        assert ED25519.private[8:72] not in out
        assert PrivateKey.from_protobuf(bytes.fromhex(ED25519.private)).to_base64() not in out


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_convert_goes_through_every_format_and_back(cli: Cli, kind: str) -> None:
    private = bytes.fromhex(VECTORS[kind].private)
    (cli.directory / "protobuf").write_bytes(private)
    before = "protobuf"
    for form in ("base64", "pem", "hex"):
        assert cli.run("id", "convert", before, "--to", form, "--out", form).status == 0
        assert stat.S_IMODE((cli.directory / form).stat().st_mode) == 0o600
        before = form
    assert cli.run("id", "convert", before, "--to", "protobuf", "--out", "again").status == 0
    assert (cli.directory / "again").read_bytes() == private


def test_convert_gives_the_public_key_alone(cli: Cli) -> None:
    (cli.directory / "key").write_bytes(bytes.fromhex(ED25519.private))
    (cli.directory / "key").chmod(0o600)
    for form in ("hex", "base64", "pem"):
        assert cli.run("id", "convert", "key", "--to", form, "--public", "--out", form).status == 0
        shown = cli.run("id", "show", form, "--json", *(() if form == "pem" else ("--from", "public")))
        fields = json.loads(shown.out)
        assert (fields["peer_id"], fields["has_private_key"]) == (ED25519.base58, False)
    assert (cli.directory / "hex").read_text() == ED25519.public + "\n"
    assert cli.run("id", "convert", "key", "--to", "hex", "--public").out == ED25519.public + "\n"


def test_standard_input_and_output_carry_keys(cli: Cli) -> None:
    private = bytes.fromhex(SECP256K1.private)
    as_text = cli.run("id", "convert", "-", "--to", "base64", stdin=private)
    assert as_text.status == 0
    fields = json.loads(cli.run("id", "show", "-", "--json", stdin=as_text.out.encode()).out)
    assert fields["peer_id"] == SECP256K1.base58


def test_a_private_key_others_can_read_is_a_warning(cli: Cli) -> None:
    (cli.directory / "key").write_bytes(bytes.fromhex(ED25519.private))
    (cli.directory / "key").chmod(0o644)
    shown = cli.run("id", "show", "key")
    assert shown.status == 0
    assert shown.err == "p2pcore: warning: key: other users can read this key (mode 644): chmod 600 it\n"


SEED = bytes(range(100, 132))
PYTHON_FORMS = {
    "raw": SEED,
    "hex": SEED.hex().encode(),
    "protobuf": b"\x08\x01\x12\x20" + SEED,
    "base64 protobuf": base64.b64encode(b"\x08\x01\x12\x20" + SEED),
}


@pytest.mark.parametrize("name", PYTHON_FORMS)
def test_a_seed_is_never_printed_or_written_as_a_public_key(cli: Cli, name: str) -> None:
    """The form of py-libp2p, which nothing tells from that of a public key."""
    (cli.directory / "key").write_bytes(PYTHON_FORMS[name])
    (cli.directory / "key").chmod(0o600)
    for args in (("show", "key"), ("convert", "key", "--to", "pem", "--public", "--out", "public")):
        refused = cli.run("id", *args)
        assert_fails(refused, 1, "--from seed")
        for form in (SEED.hex(), base64.b64encode(SEED).decode(), PYTHON_FORMS[name].decode("latin-1")):
            assert form not in refused.out + refused.err
    assert not (cli.directory / "public").exists()
    fields = json.loads(cli.run("id", "show", "key", "--from", "seed", "--json").out)
    key = PrivateKey.from_seed(SEED)
    assert fields["peer_id"] == str(key.peer_id())
    assert fields["public_key"] == key.public_key.to_base64()
    assert fields["has_private_key"] is True
    assert cli.run("id", "convert", "key", "--from", "seed", "--to", "base64").out.strip() == key.to_base64()


@pytest.mark.parametrize(
    "text",
    [
        PrivateKey.from_seed(SEED).to_base64(),
        PrivateKey.from_seed(SEED).to_protobuf().hex(),
        SEED.hex(),
        SEED.hex()[1:],
        base64.b64encode(SEED).decode(),
        PrivateKey.from_seed(SEED).to_pem(),
    ],
)
def test_a_key_given_in_place_of_a_file_is_not_shown(cli: Cli, text: str) -> None:
    for args in (
        ("id", "show", text),
        ("id", "convert", text, "--to", "pem"),
        ("listen", "--key", text),
        ("ping", "/ip4/127.0.0.1/tcp/1", "--any-peer", "--key", text),
    ):
        failed = cli.run(*args)
        assert failed.status in (1, 2)  # 2: PEM begins like an option
        assert "characters that may be a key" in failed.err
        for secret in (text[-16:], text[-32:-16]) if "KEY" not in text else (text[40:60],):
            assert secret not in failed.out + failed.err


def test_an_encrypted_key_takes_its_password_from_the_environment(cli: Cli) -> None:
    key = PrivateKey.from_seed(SEED)
    key.write(cli.directory / "key", "pem", password="secret")
    assert_fails(cli.run("id", "show", "key"), 1, "P2PCORE_KEY_PASSWORD")
    assert_fails(cli.run("id", "show", "key", P2PCORE_KEY_PASSWORD="wrong"), 1, "assword")
    assert str(key.peer_id()) in cli.run("id", "show", "key", P2PCORE_KEY_PASSWORD="secret").out


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (("show", "./nothing"), 1, "./nothing: no such file or directory"),
        (("show", "nothing"), 1, "nothing: neither a file nor a peer id"),
        (("show", "."), 1, "is a directory"),
        (("show", "/dev/zero"), 1, "more than 65536 bytes"),
        (("show", "-"), 1, "-: the file is empty; a key was expected"),
        (("show", "/dev/null"), 1, "the file is empty; a key was expected"),
        (("show", "text"), 1, "text: no key"),
        (("show", "pem"), 1, "pem: not a private key that we can read"),
        (("show", "forged"), 1, "forged: the public half"),
        (("convert", "text", "--to", "pem"), 1, "text: no key"),
        (("convert", "text"), 2, "Missing option '--to'"),
        (("new", "--type", "dsa"), 2, "'dsa' is not one of"),
        (("new", "--format", "protobuf"), 2, "protobuf is a binary format"),
        (("new", "--out", "/nonexistent/key"), 1, "/nonexistent/key: no such file or directory"),
        (("new", "--out", ".", "--force"), 1, ".: this is a directory"),
        (("frobnicate",), 2, "No such command 'frobnicate'"),
    ],
)
def test_what_is_wrong_is_one_line(cli: Cli, args: tuple[str, ...], status: int, text: str) -> None:
    (cli.directory / "text").write_text("these are not the keys you are looking for")
    (cli.directory / "pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    (cli.directory / "forged").write_text(ED25519.private[:-2] + "00")
    assert_fails(cli.run("id", *args), status, text)
