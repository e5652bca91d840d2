"""Runs the limit: `run.py LIBRARY listen|OP [options]`.

Comes in: what `limit.build` has built. Goes out: what its C prints. Python only loads it, and finds the
libraries that p2pcore uses: libsodium of PyNaCl, OpenSSL of `cryptography`. `cryptography` does not give out
OpenSSL's functions for records, but `nm` knows where they lie.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys

from cryptography.hazmat.bindings import _rust
from nacl import _sodium

OPENSSL = (
    "EVP_CIPHER_CTX_new",
    "EVP_CIPHER_CTX_free",
    "EVP_CipherInit_ex",
    "EVP_CIPHER_CTX_ctrl",
    "EVP_EncryptUpdate",
    "EVP_EncryptFinal_ex",
    "EVP_DecryptUpdate",
    "EVP_DecryptFinal_ex",
    "EVP_aes_128_gcm",
    "EVP_chacha20_poly1305",
    "EVP_PKEY_Q_keygen",
    "EVP_PKEY_CTX_new",
    "EVP_PKEY_CTX_free",
    "EVP_PKEY_sign_init",
    "EVP_PKEY_sign",
    "EVP_PKEY_verify_init",
    "EVP_PKEY_verify",
)
"""In the order of `openssl` in crypto.c."""
KNOWN = "PyInit__rust"
"""A function that the library gives out: the others lie as far from it as in the file."""


def addresses() -> list[int]:
    """Where the functions are in this process. Raises LookupError: the library has no symbols."""
    done = subprocess.run(["nm", _rust.__file__], capture_output=True, text=True, check=True)
    places = {line.split()[-1]: line.split()[0] for line in done.stdout.splitlines()}
    if missing := {KNOWN, *OPENSSL} - set(places):
        raise LookupError(f"nm does not find {', '.join(sorted(missing))} in cryptography")
    known = ctypes.cast(getattr(ctypes.CDLL(_rust.__file__), KNOWN), ctypes.c_void_p)
    moved = (known.value or 0) - int(places[KNOWN], 16)
    return [int(places[name], 16) + moved for name in OPENSSL]


def main() -> int:
    """The exit status."""
    words = [_sodium.__file__, *sys.argv[2:]]
    given = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
    functions = (ctypes.c_void_p * len(OPENSSL))(*addresses())
    status: int = ctypes.CDLL(sys.argv[1]).limit(len(words), given, functions)
    return status


if __name__ == "__main__":
    sys.exit(main())
