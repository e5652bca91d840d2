"""Keys in files: reading any form, writing them so that only their owner can read them.

Comes in: paths, text, keys. Goes out: keys, files. Never overwrites a file unless told to, and then at once:
the old key is there until the new one is. Never reads more than MAX_FILE_BYTES.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from p2pcore import PSK, IdentityError, PrivateKey, PublicKey
from p2pcore.cli.failure import CommandFailed
from p2pcore.cli.output import error_line

Key = PrivateKey | PublicKey

MAX_FILE_BYTES: Final = 64 * 1024
"""The PEM of an RSA key of 8192 bits has about 6,400."""
PRIVATE_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644
FORMATS: Final = ("protobuf", "base64", "hex", "pem")


def load_private_key(path: str) -> PrivateKey:
    """The private key in the file at `path` ("-": standard input). Raises CommandFailed, OSError."""
    key = load_key(path)
    if not isinstance(key, PrivateKey):
        raise CommandFailed(f"{path}: a public key, where a private one is needed")
    return key


def load_psk(path: str) -> PSK:
    """The key of a private network in the file at `path` ("-": standard input).

    Raises: CommandFailed: no key in there; OSError: the file cannot be read.
    """
    data = _read(path)
    try:
        psk = PSK.parse(data)
    except IdentityError as error:
        raise CommandFailed(f"{path}: {error}") from error
    if path != "-":
        _warn_if_shared(path)
    return psk


def load_key(path: str) -> Key:
    """The private or public key in the file at `path` ("-": standard input), in any of FORMATS.

    Raises: CommandFailed: no key in there; OSError: the file cannot be read.
    """
    data = _read(path)
    try:
        key = parse_key(data)
    except IdentityError as error:
        raise CommandFailed(f"{path}: {error}") from error
    if isinstance(key, PrivateKey) and path != "-":
        _warn_if_shared(path)
    return key


def check_certificates(path: str) -> None:
    """Asks before a dial, where it would seem to be the peer's fault.

    Raises: CommandFailed: no certificate is in the file at `path`; OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        if not any(b"CERTIFICATE-----" in line for line in file):
            raise CommandFailed(f"{path}: no certificate (PEM) is in there")


def _read(path: str) -> bytes:
    source: str | int = 0 if path == "-" else path  # sys.stdin is None where it was closed
    with open(source, "rb", closefd=path != "-") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise CommandFailed(f"{path}: more than {MAX_FILE_BYTES} bytes, so it is no key file")
    if not data.strip():
        raise CommandFailed(f"{path}: empty, where a key was expected")
    return data


def _warn_if_shared(path: str) -> None:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        error_line(f"p2pcore: warning: {path}: others can read this key (mode {mode:o}); chmod 600 it")


def parse_key(data: bytes) -> Key:
    """The key in `data`: PEM, protobuf, or that in base64 or hex. Raises IdentityError."""
    text = data.decode("ascii", errors="replace").strip()
    if text.startswith("-----BEGIN"):
        is_public = "PUBLIC KEY-----" in text.partition("\n")[0]
        return PublicKey.from_pem(text) if is_public else PrivateKey.from_pem(text)
    if data[0] == 0x08:  # the first byte of every key protobuf, and a control character in any text
        return _parse_protobuf(data)
    try:
        decoded = bytes.fromhex(text)
    except ValueError:
        decoded = _from_base64(text)
    return _parse_protobuf(decoded)


def _from_base64(text: str) -> bytes:
    import base64

    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise IdentityError("no key: neither PEM, nor a protobuf, nor one in base64 or hex") from None


def _parse_protobuf(data: bytes) -> Key:
    """Private and public keys are written alike; their sizes tell them apart."""
    try:
        return PrivateKey.from_protobuf(data)
    except IdentityError as error:
        try:
            return PublicKey.from_protobuf(data)
        except IdentityError:
            raise error from None


def format_key(key: Key, form: str) -> bytes:
    """`key` in one of FORMATS; texts end with a newline."""
    if form == "pem":
        return key.to_pem().encode()
    if form == "base64":
        return key.to_base64().encode() + b"\n"
    data = key.to_protobuf()
    return data.hex().encode() + b"\n" if form == "hex" else data


def write_file(path: str, data: bytes, mode: int, force: bool) -> None:
    """Writes a new file with `mode`, or with `force` puts it in the place of an old one.

    Raises: CommandFailed: there is a file already; OSError: it cannot be written, and nothing has changed.
    """
    if os.path.isdir(path):
        raise CommandFailed(f"{path}: a directory, where a file is to be written")
    target = f"{path}.{os.getpid()}.new" if force else path
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise CommandFailed(f"{target}: exists already; --force replaces it") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if force:
            os.replace(target, path)
    except BaseException:
        os.unlink(target)
        raise
