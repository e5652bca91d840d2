"""Reads and writes key files for commands, and explains what is wrong with them.

Comes in: paths, text, keys. Goes out: keys, files. Never overwrites a file unless the user says so. Never
shows a text that may be a key.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import Final

import click

from p2pcore import PSK, IdentityError, PrivateKey, PublicKey
from p2pcore.cli.failure import CommandFailed
from p2pcore.cli.output import error_line
from p2pcore.limits import MAX_KEY_FILE_BYTES, MAX_PSK_FILE_BYTES
from p2pcore.values import key_files
from p2pcore.values.key_files import PRIVATE_MODE, PUBLIC_MODE, shown
from p2pcore.values.keys import WRITTEN_FORMS, parse_key

__all__ = ["PRIVATE_MODE", "PUBLIC_MODE", "shown"]

Key = PrivateKey | PublicKey

FORMATS: Final = WRITTEN_FORMS
INPUT_FORMS: Final = key_files.FORMS
PASSWORD_VARIABLE: Final = "P2PCORE_KEY_PASSWORD"
"""The environment variable with the password of an encrypted key file. Without it, we ask on the terminal."""


def load_private_key(path: str, form: str | None = None) -> PrivateKey:
    """The private key in the file at `path` ("-": standard input). Raises CommandFailed, OSError."""
    key = load_key(path, form)
    if not isinstance(key, PrivateKey):
        raise CommandFailed(f"{path}: this is a public key; a private key is needed")
    return key


def load_psk(source: str) -> PSK:
    """The key of a private network. `source`: the key itself, a file, or "-" for standard input.

    Raises: CommandFailed: there is no key. OSError: the file cannot be read.
    """
    try:
        psk = None if source == "-" else PSK.from_text(source)
        if psk is not None:
            error_line(
                "p2pcore: warning: all users of this machine can see a key on the command line; use a file"
            )
            return psk
        psk = PSK.parse(_read(source, MAX_PSK_FILE_BYTES))
    except IdentityError as error:
        raise CommandFailed(f"{shown(source)}: {error}") from error
    _warn_if_shared(source)
    return psk


def load_key(path: str, form: str | None = None) -> Key:
    """The private or public key in the file at `path` ("-": standard input), see PrivateKey.read.

    Raises: CommandFailed: there is no key in the file. OSError: the file cannot be read.
    """
    data = _read(path, MAX_KEY_FILE_BYTES)
    try:
        key = parse_key(data, form, _password(data))
    except IdentityError as error:
        raise CommandFailed(f"{path}: {_as_option(str(error))}") from error
    if isinstance(key, PrivateKey):
        _warn_if_shared(path)
    return key


def _as_option(text: str) -> str:
    """Replaces the library's argument in a message by the option of `p2pcore id`."""
    return text.replace('form="seed"', "`id convert --from seed`").replace('form="public"', "`--from public`")


def _password(data: bytes) -> str | None:
    if not key_files.is_encrypted(data):
        return None
    password = os.environ.get(PASSWORD_VARIABLE)
    if password is None and sys.stdin is not None and sys.stdin.isatty():
        password = click.prompt("Password of the key", hide_input=True, err=True)
    if password is None:
        raise CommandFailed(
            f"the key is encrypted: put its password into the environment variable {PASSWORD_VARIABLE}"
        )
    return password


def check_certificates(path: str) -> None:
    """Checks a file of certificates before a dial. Otherwise the error would seem to be the peer's fault.

    Raises: CommandFailed: there is no certificate in the file. OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        if not any(b"CERTIFICATE-----" in line for line in file):
            raise CommandFailed(f"{path}: there is no certificate (PEM) in this file")


def _read(path: str, max_bytes: int) -> bytes:
    try:
        data = key_files.read_file(
            0 if path == "-" else path, max_bytes
        )  # the descriptor, because sys.stdin is None if it was closed
    except IdentityError as error:
        raise CommandFailed(f"{path}: {error}") from error
    if not data.strip():
        raise CommandFailed(f"{path}: the file is empty; a key was expected")
    return data


def _warn_if_shared(path: str) -> None:
    if path == "-":
        return
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        error_line(f"p2pcore: warning: {path}: other users can read this key (mode {mode:o}): chmod 600 it")


def write_file(path: str, data: bytes, mode: int, force: bool) -> None:
    """Writes a new file with `mode`. With `force`, the new file replaces an old one.

    If this raises, nothing has changed.

    Raises: CommandFailed: there is a file already. OSError: it cannot be written.
    """
    if os.path.isdir(path):
        raise CommandFailed(f"{path}: this is a directory; the name of a file is needed")
    try:
        key_files.write_file(path, data, mode, force)
    except FileExistsError:
        raise CommandFailed(f"{path}: the file exists already; --force replaces it") from None
