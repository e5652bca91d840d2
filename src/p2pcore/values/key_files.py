"""Keys in files: recognizes their form, reads and writes them safely.

Comes in: paths, the bytes of files. Goes out: bytes and the form they have; files that only their owner can
read. Never decides whether 32 bytes are a seed or a public key: the caller does. Overwrites a file only if
told to, and in one step: there is always an old or a new file. Never reads more than MAX_KEY_FILE_BYTES. A
text that was given as a path may be a key by mistake, so no message shows such a text.
"""

from __future__ import annotations

import base64
import enum
import errno
import os
import re
from dataclasses import dataclass, field
from typing import Final

from p2pcore.errors import IdentityError
from p2pcore.limits import MAX_KEY_FILE_BYTES

PRIVATE_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644
FORMS: Final = ("protobuf", "public", "seed", "pem", "der")
"""The forms a caller may name: see PrivateKey.read."""

_ED25519_HEAD: Final = bytes.fromhex("08011220")  # Type 1, and 32 bytes of Data
_BOMS: Final = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# Texts, which `re` compiles when a file is read, and keeps.
_PEM: Final = r"(?s)-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----"
_RUN: Final = r"[A-Za-z0-9+/=_-]{24,}"
_PEER_ID: Final = r"(12D3KooW|16Uiu2HA)[1-9A-HJ-NP-Za-km-z]{40,50}"
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_WAY_OUT: Final = 'form="seed" means an Ed25519 private key (py-libp2p), form="public" a public key'


class Form(enum.Enum):
    """The form of a key's bytes."""

    PROTOBUF = "a protobuf, private or public"
    PUBLIC = "a PublicKey protobuf"
    SEED = "the seed of an Ed25519 key, with or without its public key"
    PEM = "PEM"
    DER = "DER"
    OPENSSH = "OpenSSH"
    OPENSSH_PUBLIC = "the line of an OpenSSH public key"


@dataclass(frozen=True, slots=True)
class Found:
    """A key from a file, in the encoding of the key; base64 or hex of the file is already decoded."""

    form: Form
    data: bytes = field(repr=False)
    is_private: bool | None = None


# -- recognizing -------------------------------------------------------------------------------


def recognize(data: bytes, form: str | None = None) -> Found:
    """The key in `data`, the bytes of a file.

    Args:
        form: one of FORMS; needed where the file does not say it; no other form is accepted then.

    Raises:
        IdentityError: no key, several keys, another form, or bytes that may be private as well as public.
        ValueError: `form` is unknown.
    """
    if form is not None and form not in FORMS:
        raise ValueError(f"form: one of {', '.join(FORMS)} expected, not {form!r}")
    if form == "seed" and len(data) == 32:  # even if these bytes are also readable text
        return Found(Form.SEED, data)
    text = _text(data)
    found = _in_text(text, form) if text is not None else _in_bytes(data, form)
    wanted = {"protobuf": (Form.PROTOBUF,), "pem": (Form.PEM, Form.OPENSSH), "der": (Form.DER,)}
    if form in wanted and found.form not in wanted[form]:
        raise IdentityError(f"{found.form.value}, where {form} was expected")
    return found


def _text(data: bytes) -> str | None:
    """`data` as text, if it is text."""
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        text = data.decode(encoding)
    except ValueError:
        return None
    return text if all(char.isprintable() or char in "\t\r\n\f" for char in text) else None


def _in_text(text: str, form: str | None) -> Found:
    stripped = text.strip()
    if "-----BEGIN " in text:
        return _in_pem("\n".join(line.strip() for line in text.splitlines()))
    if stripped.startswith(("ssh-", "ecdsa-sha2-", "sk-")):
        return Found(Form.OPENSSH_PUBLIC, stripped.encode(), is_private=False)
    if stripped.startswith("PuTTY-User-Key-File"):
        raise IdentityError("PuTTY keys are not supported: export the key as OpenSSH")
    return _in_bytes(_decoded(stripped), form)


def _in_pem(text: str) -> Found:
    blocks = [(match[1], match[0]) for match in re.finditer(_PEM, text)]
    private = [block for block in blocks if block[0].endswith("PRIVATE KEY")]
    public = [block for block in blocks if block[0].endswith("PUBLIC KEY")]
    chosen = private or public
    if not blocks:
        raise IdentityError("PEM without its last line: -----END ...-----")
    if not chosen:
        raise IdentityError(f"PEM of {blocks[0][0].lower()}, where a key was expected")
    if len(chosen) > 1:
        raise IdentityError(f"{len(chosen)} keys, where one was expected")
    label, pem = chosen[0]
    form = Form.OPENSSH if label.startswith("OPENSSH") else Form.PEM
    return Found(form, pem.encode() + b"\n", is_private=bool(private))


def _decoded(text: str) -> bytes:
    compact = "".join(text.split())
    try:
        return bytes.fromhex(compact.removeprefix("0x"))
    except ValueError:
        pass
    try:
        padded = compact + "=" * (-len(compact) % 4)
        return base64.b64decode(padded.translate({45: "+", 95: "/"}), validate=True)
    except ValueError:
        pass
    raise IdentityError("no key: expected PEM, DER, OpenSSH, or a protobuf (also in base64 or hex)")


def _in_bytes(data: bytes, form: str | None) -> Found:
    is_short_protobuf = len(data) == 36 and data.startswith(_ED25519_HEAD)
    if form == "seed":
        if is_short_protobuf or len(data) in (32, 64):
            return Found(Form.SEED, data[4:] if is_short_protobuf else data)
        raise IdentityError(f"an Ed25519 seed has 32 bytes, not {len(data)}")
    if form == "public":
        return Found(Form.PUBLIC, data)
    if len(data) == 32:
        raise IdentityError(f"32 bytes may be a private or a public key; {_WAY_OUT}")
    if is_short_protobuf:
        raise IdentityError(f"an Ed25519 key of 32 bytes may be private or public; {_WAY_OUT}")
    if len(data) == 64:
        return Found(Form.SEED, data)
    if data[:1] == b"\x30":
        return Found(Form.DER, data)
    if data[:1] == b"\x08":
        return Found(Form.PROTOBUF, data)
    raise IdentityError("no key: expected PEM, DER, OpenSSH, or a protobuf (also in base64 or hex)")


def is_encrypted(data: bytes) -> bool:
    """Whether `data`, the bytes of a PEM or OpenSSH key file, needs a password; False for DER."""
    text = _text(data)
    if text is None or "-----BEGIN " not in text:
        return False
    if "-----BEGIN OPENSSH PRIVATE KEY" in text:
        body = text.partition("PRIVATE KEY-----")[2].partition("-----END")[0]
        return b"\0\0\0\x04none\0\0\0\x04none" not in _bytes_of(body)[:64]  # PROTOCOL.key: cipher and kdf
    return "-----BEGIN ENCRYPTED PRIVATE KEY" in text or "Proc-Type: 4,ENCRYPTED" in text


def _bytes_of(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()))
    except ValueError:
        return b""


# -- reading and writing -----------------------------------------------------------------------


def may_be_key(text: str) -> bool:
    """Whether `text`, given as a path or an id, may be a key by mistake, perhaps with a typing error."""
    if "PRIVATE KEY" in text or "/key/swarm/psk" in text:
        return True
    compact = re.sub(r"[\s:]", "", text)
    runs = [run[0] for run in re.finditer(_RUN, compact) if not re.fullmatch(_PEER_ID, run[0])]
    return any(_is_dense(run) for run in runs)


def _is_dense(run: str) -> bool:
    """Whether `run` is mostly hexadecimal, is base32, or has every kind of character that base64 has."""
    if re.fullmatch("[A-Z2-7]+", run) and re.search("[2-7]", run):
        return True
    if sum(char in "0123456789abcdefABCDEF" for char in run) > 0.8 * len(run):
        return True
    return re.search("[a-z]", run) is not None and re.search("[A-Z].*[0-9+=]|[0-9+=].*[A-Z]", run) is not None


def shown(path: str | os.PathLike[str]) -> str:
    """`path` for messages; for a text that may be a key, only its length."""
    text = os.fsdecode(path)
    return f"<{len(text)} characters that may be a key>" if may_be_key(text) else text


def read_file(path: str | os.PathLike[str] | int, max_bytes: int = MAX_KEY_FILE_BYTES) -> bytes:
    """Reads the file at `path`, or the open descriptor `path`, which stays open.

    Raises:
        OSError: it cannot be read; the error has the path as `shown` gives it.
        IdentityError: the file has more than `max_bytes`.
    """
    try:
        with open(path, "rb", closefd=not isinstance(path, int)) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        failure = error.errno or errno.EIO
    except ValueError:  # a null byte in the path
        failure = errno.EINVAL
    else:
        if len(data) > max_bytes:
            raise IdentityError(f"more than {max_bytes} bytes, so it is not a key file")
        return data
    # Raised outside of `except`: the first error contains the path, and must not become the context.
    raise OSError(failure, os.strerror(failure), path if isinstance(path, int) else shown(path))


def write_file(path: str | os.PathLike[str], data: bytes, mode: int, overwrite: bool = False) -> None:
    """Writes a file with `mode`, completely or not at all.

    Raises:
        FileExistsError: the file exists, and `overwrite` is False. OSError: it cannot be written. In both
            cases nothing has changed.
    """
    target = os.fsdecode(path)
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    if os.path.lexists(target) and not overwrite:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    new = f"{target}.{os.urandom(4).hex()}.new"
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), target) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _put(new, target, overwrite)
    except BaseException:
        _remove(new)
        raise
    _sync_directory(target)


def _put(new: str, target: str, overwrite: bool) -> None:
    """Renames the file `new` to `target`. Without `overwrite` it uses a link, which replaces nothing."""
    if not overwrite:
        try:
            os.link(new, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise OSError(error.errno, os.strerror(error.errno or 0), target) from error
        else:
            os.unlink(new)
            return
    os.replace(new, target)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _sync_directory(path: str) -> None:
    """Makes the new name survive a power failure; not every file system can."""
    try:
        descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
