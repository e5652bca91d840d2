"""Private networks: the shared key, its file, its fingerprint, and the encryption of a raw connection.

Comes in: a key file, a raw connection. Goes out: a PSK, a PnetLayer below the connection's mailbox. Never
shows a key: not in an error, a log or a repr. Specification: libp2p pnet, "Private-Networks-PSK-V1"; the key
file is that of go-ipfs (swarm.key).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import shake_128
from typing import Final

from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.crypto.pnet import PnetLayer, salsa20
from p2pcore.errors import IdentityError
from p2pcore.limits import MAX_PSK_FILE_BYTES
from p2pcore.values.key_files import read_file

HEADER: Final = b"/key/swarm/psk/1.0.0/"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24
_BOM: Final = b"\xef\xbb\xbf"
_FROM_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
FINGERPRINT_NONCE: Final = b"finprint"
"""The salt of go-libp2p-pnet: all implementations show the same fingerprint."""


@dataclass(frozen=True, slots=True)
class PSK:
    """The key of a private network, 32 bytes.

    Raises:
        IdentityError: `key` has another length.
    """

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise IdentityError(f"a network key has {KEY_BYTES} bytes, not {len(self.key)}")

    @classmethod
    def generate(cls) -> PSK:
        """A new random key."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> PSK:
        """The key in the file at `path`. Raises OSError; IdentityError as `parse`."""
        return cls.parse(read_file(path, MAX_PSK_FILE_BYTES))

    @classmethod
    def parse(cls, data: bytes) -> PSK:
        """The key in the bytes of a key file: a header, an encoding, the key; lines may end with CRLF.

        A byte-order mark may come first.

        Raises:
            IdentityError: a line is wrong; the message says which, but never contains the third line.
        """
        if len(data) > MAX_PSK_FILE_BYTES:
            raise IdentityError(f"a key file has at most {MAX_PSK_FILE_BYTES} bytes")
        header, _, rest = data.removeprefix(_BOM).partition(b"\n")
        encoding, _, text = rest.partition(b"\n")
        if header.rstrip(b"\r") != HEADER:
            raise IdentityError(f"line 1 of the key file is not {HEADER.decode()}")
        decode = _ENCODINGS.get(encoding.rstrip(b"\r"))
        if decode is None:
            raise IdentityError("line 2 of the key file is not /base16/, /base64/ or /bin/")
        key = decode(text)
        if key is None:
            raise IdentityError(
                f"line 3 of the key file is not a key of {KEY_BYTES} bytes in {encoding.decode().strip()}"
            )
        return cls(key)

    @classmethod
    def from_text(cls, text: str) -> PSK | None:
        """The key in `text`: 64 hex digits, 44 characters of base64, or the content of a key file.

        The three parts of a key file may be in one line, separated by blanks or "\\n". None: `text` is not a
        key, but may be a path.

        Raises:
            IdentityError: it begins like a key file, but the rest is wrong.
        """
        stripped = text.strip()
        if stripped.startswith(HEADER.decode()):
            parts = stripped.replace("\\r", " ").replace("\\n", " ").split()
            return cls.parse("\n".join(parts).encode(errors="replace"))
        compact = stripped.removeprefix("0x").encode(errors="replace")
        key = _base16(compact) or _base64(compact.translate(_FROM_URL_SAFE))
        return None if key is None else cls(key)

    @classmethod
    def of(cls, source: PSK | str | os.PathLike[str] | bytes) -> PSK:
        """A PSK from a PSK, from text (a key, see `from_text`, or a path), or from bytes.

        32 bytes are the key itself; other bytes are a key as text, or a key file. Use a `pathlib.Path` for a
        path that looks like a key.

        Raises:
            IdentityError: not a key; OSError: no such file. Neither shows a text that may be a key.
        """
        if isinstance(source, PSK):
            return source
        if isinstance(source, bytes):
            if len(source) == KEY_BYTES:
                return cls(source)
            is_text = source.isascii() and not source.startswith(HEADER + b"\n/bin/")
            found = cls.from_text(source.decode()) if is_text else None
            if found is None and not source.removeprefix(_BOM).startswith(b"/key/"):
                raise IdentityError(
                    f"{len(source)} bytes are no network key: expected {KEY_BYTES} bytes, 64 hex digits, 44 "
                    "characters of base64, or the content of a key file (PSK.read(path) reads a file)"
                )
            return found or cls.parse(source)
        if isinstance(source, str):
            return cls.from_text(source) or cls.read(source)
        return cls.read(source)

    def encode(self) -> bytes:
        """The bytes of a key file, in the encoding that go, rust and js all read."""
        return HEADER + b"\n/base16/\n" + self.key.hex().encode() + b"\n"

    @property
    def fingerprint(self) -> str:
        """32 hex digits for people to compare, the same as in go and rust. They do not reveal the key."""
        return shake_128(salsa20(self.key, FINGERPRINT_NONCE, 64)).hexdigest(16)


class PrivateNetwork:
    """Encrypts connections with the key of a private network; satisfies interfaces.Protector.

    Args:
        psk: the network's key.
        entropy: returns n random bytes.
    """

    __slots__ = ("_entropy", "_psk")

    def __init__(self, psk: PSK, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._psk = psk
        self._entropy = entropy

    def protect(self, mailbox: Mailbox) -> PnetLayer:
        """See interfaces.Protector."""
        layer = PnetLayer(self._psk.key, self._entropy(NONCE_BYTES))
        mailbox.insert(layer)
        return layer


def _exactly(key: bytes) -> bytes | None:
    return key if len(key) == KEY_BYTES else None


def _base16(text: bytes) -> bytes | None:
    try:
        return _exactly(binascii.unhexlify(text.rstrip(b"\r\n")))
    except binascii.Error:
        return None


def _base64(text: bytes) -> bytes | None:
    try:
        return _exactly(base64.b64decode(text.rstrip(b"\r\n"), validate=True))
    except binascii.Error:
        return None


def _binary(text: bytes) -> bytes | None:
    return text[:KEY_BYTES] if text[KEY_BYTES:] in (b"", b"\n", b"\r\n") and len(text) >= KEY_BYTES else None


_ENCODINGS: Final[dict[bytes, Callable[[bytes], bytes | None]]] = {
    b"/base16/": _base16,
    b"/base64/": _base64,
    b"/bin/": _binary,
}
