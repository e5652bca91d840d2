"""Keys in files: every form people have is read, nothing is guessed, nothing shown, nothing lost."""

from __future__ import annotations

import base64
import errno
import importlib.util
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, strategies as st

from key_vectors import ECDSA, ED25519, INITIATOR, RSA, SECP256K1
from p2pcore.errors import IdentityError
from p2pcore.limits import MAX_KEY_FILE_BYTES
from p2pcore.values import key_files
from p2pcore.values.key_files import may_be_key, read_file, shown
from p2pcore.values.keys import KeyType, PrivateKey, PublicKey, parse_key

VECTORS = {"ed25519": ED25519, "secp256k1": SECP256K1, "ecdsa": ECDSA, "rsa": RSA}
KEY = PrivateKey.from_seed(INITIATOR.seed)
SEED = os.urandom(32)  # random, so that no text has it by chance
SECRET = PrivateKey.from_seed(SEED)
PYTHON_PROTOBUF = b"\x08\x01\x12\x20" + SEED
"""A PrivateKey protobuf as py-libp2p writes it; with a public key for the seed it would be a PublicKey."""


def theirs() -> ed25519.Ed25519PrivateKey:
    """SECRET as `cryptography` has it."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(SEED)


def openssh() -> bytes:
    return theirs().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def hides_seed(text: str) -> bool:
    forms = (
        SEED.hex(),
        base64.b64encode(SEED).decode(),
        base64.b64encode(PYTHON_PROTOBUF).decode(),
        repr(SEED),
    )
    return not any(form[at : at + 12] in text for form in forms for at in (0, 12, 24))


# -- reading -----------------------------------------------------------------------------------

FULL = SECRET.to_protobuf()
UNAMBIGUOUS = {
    "protobuf": FULL,
    "base64": base64.b64encode(FULL),
    "base64 in lines": base64.encodebytes(FULL).replace(b"\n", b"\r\n"),
    "base64 for URLs": base64.urlsafe_b64encode(FULL).rstrip(b"="),
    "hex": FULL.hex().encode() + b"\n",
    "HEX": b"0x" + FULL.hex().upper().encode(),
    "old protobuf": b"\x08\x01\x12\x60" + FULL[4:] + FULL[-32:],
    "libsodium": FULL[4:],
    "libsodium in hex": FULL[4:].hex().encode(),
    "der": SECRET.to_pkcs8(),
    "der in base64": base64.b64encode(SECRET.to_pkcs8()),
    "pem": SECRET.to_pem().encode(),
    "pem after comments": b"# our key\nBag Attributes: none\n\n" + SECRET.to_pem().encode() + b"# end\n",
    "pem after a mark": b"\xef\xbb\xbf" + SECRET.to_pem().encode(),
    "pem in UTF-16": SECRET.to_pem().encode("utf-16"),
    "pem indented, CRLF": b"".join(b"  " + line + b"\r\n" for line in SECRET.to_pem().encode().splitlines()),
    "pem with its public key": SECRET.public_key.to_pem().encode() + SECRET.to_pem().encode(),
    "base64 after a mark": b"\xef\xbb\xbf" + base64.b64encode(FULL),
    "openssh": openssh(),
}


@pytest.mark.parametrize("name", UNAMBIGUOUS)
def test_every_form_that_says_what_it_is_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(UNAMBIGUOUS[name])
    key = PrivateKey.read(path)
    assert key.to_protobuf() == FULL
    assert PrivateKey.read(str(path)).peer_id() == SECRET.peer_id()


@pytest.mark.parametrize("kind", VECTORS)
def test_keys_of_every_type_are_read_and_written_in_every_form(kind: str, tmp_path: Path) -> None:
    key = PrivateKey.from_protobuf(bytes.fromhex(VECTORS[kind].private))
    for form in ("protobuf", "base64", "hex", "pem", "der"):
        path = tmp_path / form
        key.write(path, form)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert PrivateKey.read(path).to_protobuf() == key.to_protobuf()
        public = parse_key(key.public_key.to_form(form), None if form in ("pem", "der") else "public")
        assert public == key.public_key
    if kind in ("ecdsa", "rsa"):  # SEC1 and PKCS#1
        der = key.to_protobuf()[5 if kind == "rsa" else 4 :]
        assert PrivateKey.parse(der, "der").to_protobuf() == key.to_protobuf()


def test_parameters_before_an_elliptic_key_are_passed_over() -> None:
    """As `openssl ecparam -genkey` writes it."""
    other = ec.generate_private_key(ec.SECP256K1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    parameters = b"-----BEGIN EC PARAMETERS-----\nBgUrgQQACg==\n-----END EC PARAMETERS-----\n"
    assert PrivateKey.parse(parameters + pem).type is KeyType.SECP256K1


AMBIGUOUS = {
    "raw seed": SEED,
    "hex seed": SEED.hex().encode() + b"\n",
    "base64 seed": base64.b64encode(SEED),
    "py-libp2p": PYTHON_PROTOBUF,
    "py-libp2p in hex": PYTHON_PROTOBUF.hex().encode(),
    "py-libp2p in base64": base64.b64encode(PYTHON_PROTOBUF),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_may_be_private_or_public_is_refused_until_the_caller_says(name: str) -> None:
    data = AMBIGUOUS[name]
    for parse in (PrivateKey.parse, parse_key):
        with pytest.raises(IdentityError, match='form="seed"') as caught:
            parse(data)
        assert hides_seed(str(caught.value))
    assert PrivateKey.parse(data, "seed").to_protobuf() == FULL
    for form in ("protobuf", "pem", "der"):
        with pytest.raises(IdentityError):
            PrivateKey.parse(data, form)
    if name.startswith("py"):
        assert parse_key(data, "public") == PublicKey(KeyType.ED25519, SEED)
        with pytest.raises(IdentityError, match="a public key where a private key"):
            PrivateKey.parse(data, "public")


def test_a_seed_that_is_readable_text_is_a_seed() -> None:
    text = b"0123456789abcdef0123456789abcdef"
    assert PrivateKey.parse(text, "seed") == PrivateKey.from_seed(text)


def test_a_libsodium_key_whose_halves_do_not_belong_together_is_refused() -> None:
    with pytest.raises(IdentityError, match="public half"):
        PrivateKey.parse(os.urandom(64))


def test_public_keys_that_say_so_are_never_taken_for_private_ones() -> None:
    public = SECRET.public_key
    line = theirs().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" me@here\n"
    for data in (public.to_form("pem"), public.to_form("der"), line):
        assert parse_key(data) == public
        with pytest.raises(IdentityError, match="a public key where a private key"):
            PrivateKey.parse(data)


@pytest.mark.parametrize("form", ["pem", "der"])
def test_a_password_is_asked_for_and_checked(form: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    SECRET.write(path, form, password="correct horse")
    assert SECRET.to_protobuf()[4:36] not in path.read_bytes()
    assert PrivateKey.read(path, password="correct horse") == SECRET
    assert PrivateKey.read(path, password=b"correct horse") == SECRET
    for wrong in (None, "battery staple"):
        with pytest.raises(IdentityError, match=r"[Pp]assword"):
            PrivateKey.read(path, password=wrong)


def test_a_wrong_password_is_named_where_it_decrypts_to_a_broken_key() -> None:
    def broken(data: bytes, password: bytes | None) -> Any:
        raise ValueError("short data")

    with pytest.raises(IdentityError, match=r"short data.*password is wrong"):
        PrivateKey._load(broken, b"", b"battery staple")


def test_a_password_for_what_is_not_encrypted_is_refused() -> None:
    for data in (FULL, SECRET.to_pem().encode(), SECRET.to_pkcs8()):
        with pytest.raises(IdentityError, match="not encrypted"):
            PrivateKey.parse(data, password="secret")
    with pytest.raises(ValueError, match="pem and der take a password"):
        SECRET.to_form("base64", "secret")


def test_an_encrypted_key_of_openssh_is_read_or_has_a_clear_answer() -> None:
    if importlib.util.find_spec("bcrypt") is None:
        with pytest.raises(IdentityError, match=r"bcrypt.*ssh-keygen -p -m PKCS8"):
            PrivateKey.parse(ENCRYPTED_OPENSSH, password="secret")
    else:
        assert PrivateKey.parse(ENCRYPTED_OPENSSH, password="secret").type is KeyType.ED25519
    with pytest.raises(IdentityError, match=r"[Pp]assword|bcrypt"):
        PrivateKey.parse(ENCRYPTED_OPENSSH)


ENCRYPTED_OPENSSH = b"""-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABDFGo8e60
tOBr8VZYb2pxyoAAAABAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIC7qRpHb4KUzFibT
piKtDppQNtXnDIiRWbmn35xKP/FrAAAAkC8pZIxFiXokFapFiSKYWw7N92KIMIIXyMEwhd
1w9IKYhstGGDuVc2Qx0VGWZNft4rj6fef1PWCHuJ8H+0iXm82I8J8SIDD+sAiN5564QbTE
BwSCe8q3Vhxz+EC7UIYpy1i3+m/CcKo6dugz04AXF1QoquWzpqNR1+oQTJzSXRLzhfX34Z
iB7ntNWuoronE8Mw==
-----END OPENSSH PRIVATE KEY-----
"""


def test_whether_a_file_needs_a_password_is_known_before_it_is_parsed() -> None:
    encrypted = SECRET.to_form("pem", "secret")
    assert key_files.is_encrypted(encrypted)
    assert key_files.is_encrypted(ENCRYPTED_OPENSSH)
    for data in (FULL, SECRET.to_pem().encode(), openssh(), SEED):
        assert not key_files.is_encrypted(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "no key"),
        (b"these are not the keys", "no key"),
        (SECRET.to_pem().encode() + KEY.to_pem().encode(), "2 keys, where one was expected"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA", "without its last line"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "PEM of certificate"),
        (
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            "not a private key",
        ),
        (b"PuTTY-User-Key-File-3: ssh-ed25519\n", "PuTTY"),
        (b"ssh-dss AAAA me", "not an OpenSSH key that we can read"),
        (b"\x08\x01\x12\x40" + bytes(63), "not a canonical private key"),
        (b"\x30\x03\x02\x01\x00", "not a private key"),
        pytest.param(os.urandom(40), "no", id="random"),
    ],
)
def test_what_is_no_key_is_refused_with_a_reason(data: bytes, text: str) -> None:
    with pytest.raises(IdentityError, match=text):
        parse_key(data)


@given(st.binary(max_size=200), st.sampled_from([None, *key_files.FORMS]))
def test_any_bytes_are_a_key_or_an_identity_error(data: bytes, form: str | None) -> None:
    try:
        parse_key(data, form)
    except IdentityError:
        pass


def test_a_form_there_is_not_is_the_callers_fault() -> None:
    with pytest.raises(ValueError, match="form: one of"):
        PrivateKey.parse(FULL, "jwk")
    for key in (SECRET, SECRET.public_key):
        with pytest.raises(ValueError, match="form: one of"):
            key.to_form("jwk")


def test_no_more_is_read_than_a_key_file_has(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=str(MAX_KEY_FILE_BYTES)):
        PrivateKey.read("/dev/zero")
    with pytest.raises(IsADirectoryError):
        PrivateKey.read(tmp_path)


# -- writing -----------------------------------------------------------------------------------


def test_a_key_is_never_written_over_a_file_by_accident(tmp_path: Path) -> None:
    path = tmp_path / "key"
    KEY.write(path)
    with pytest.raises(FileExistsError) as caught:
        SECRET.write(path)
    assert caught.value.filename == str(path)
    assert PrivateKey.read(path) == KEY
    path.chmod(0o644)
    SECRET.write(path, overwrite=True)
    assert PrivateKey.read(path) == SECRET
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["key"]


def test_a_link_that_leads_nowhere_is_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        KEY.write(tmp_path / "key")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_key_is_written_whole_or_not_at_all(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    if overwrite:
        KEY.write(path)

    def full(descriptor: int) -> None:
        assert not path.exists() or PrivateKey.read(path) == KEY
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        SECRET.write(path, overwrite=overwrite)
    assert os.listdir(tmp_path) == (["key"] if overwrite else [])


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_comes_meanwhile_is_kept(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "key", os.link

    def late(new: str, target: str) -> None:
        if not has_links:
            raise OSError(errno.EPERM, "no links on this file system")
        path.write_text("precious")
        link(new, target)

    monkeypatch.setattr(os, "link", late)
    if has_links:
        with pytest.raises(FileExistsError):
            KEY.write(path)
        assert path.read_text() == "precious"
    else:
        KEY.write(path)
        assert PrivateKey.read(path) == KEY
    assert os.listdir(tmp_path) == ["key"]


# -- never shown -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        SEED.hex(),
        SEED.hex()[:-1],
        SEED.hex() + "00",
        SEED.hex()[:30] + "g" + SEED.hex()[31:],
        SEED.hex().upper(),
        "0x" + SEED.hex(),
        '"' + SEED.hex() + '"',
        " " + SEED.hex() + "\n",
        SEED.hex(":"),
        "psk=" + SEED.hex(),
        base64.b64encode(SEED).decode(),
        base64.b64encode(SEED).decode().rstrip("="),
        base64.urlsafe_b64encode(SEED).decode(),
        base64.b64encode(FULL).decode(),
        base64.b64encode(PYTHON_PROTOBUF).decode(),
        SECRET.to_pem(),
        f"/key/swarm/psk/1.0.0/\n/base16/\n{SEED.hex()}",
    ],
    ids=lambda text: f"{len(text)} characters",  # the texts are others in each process
)
def test_a_text_that_may_be_a_key_is_not_shown_where_a_path_was_expected(text: str) -> None:
    assert may_be_key(text)
    for read in (PrivateKey.read, read_file):
        with pytest.raises(OSError) as caught:
            read(text)
        told = str(caught.value) + repr(caught.value) + str(caught.value.filename)
        assert hides_seed(told)
        assert caught.value.__context__ is None
        assert text not in told
        assert f"{len(text)} characters" in told


@given(st.binary(min_size=32, max_size=32))
def test_no_key_in_base64_or_hex_is_shown(key: bytes) -> None:
    for text in (base64.b64encode(key).decode(), key.hex()):
        assert may_be_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "swarm.key",
        "/etc/p2pcore/swarm.key",
        "/home/someone/projects/network-production/keys/swarm.key",
        "/tmp/pytest-of-root/pytest-0/test_something_long_here0/none",
        "./keys/node-1",
        ED25519.base58,
        SECP256K1.base58,
    ],
)
def test_paths_and_peer_ids_are_shown(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize("kind", VECTORS)
def test_no_repr_shows_a_private_key(kind: str) -> None:
    key = PrivateKey.from_protobuf(bytes.fromhex(VECTORS[kind].private))
    data = key.to_protobuf()[4:]
    for told in (repr(key), str(key), f"{key}", repr([key]), repr(key_files.recognize(key.to_protobuf()))):
        assert data[:8].hex() not in told
        assert repr(data[:8])[2:-1] not in told
