"""The C functions of libsodium beside the same of `cryptography`, and their bad input.

Comes in: random keys and messages. Goes out: equality. Vectors are those of tests/security/test_noise.py.
"""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from p2pcore._fast.sodium import seal, unseal, x25519, x25519_public
from security.noise_vectors import LOW_ORDER


@pytest.mark.parametrize("size", [0, 1, 32, 104, 1000])
@pytest.mark.parametrize("nonce", [0, 1, 256, 2**64 - 2])
def test_sealing_is_chacha20_poly1305_with_the_nonce_of_noise(size: int, nonce: int) -> None:
    key, plain, ad = os.urandom(32), os.urandom(size), os.urandom(32)
    expected = ChaCha20Poly1305(key).encrypt(bytes(4) + nonce.to_bytes(8, "little"), plain, ad)
    assert seal(key, nonce, plain, ad) == expected
    assert unseal(key, nonce, expected, ad) == plain


def test_what_was_changed_does_not_open() -> None:
    key = os.urandom(32)
    sealed = seal(key, 0, b"message", b"ad")
    assert unseal(key, 1, sealed, b"ad") is None
    assert unseal(key, 0, sealed, b"da") is None
    assert unseal(bytes(32), 0, sealed, b"ad") is None
    for at in range(len(sealed)):
        forged = bytearray(sealed)
        forged[at] ^= 1
        assert unseal(key, 0, bytes(forged), b"ad") is None
        assert unseal(key, 0, sealed[:at], b"ad") is None


def test_x25519_is_that_of_another_library() -> None:
    for _ in range(20):
        ours, theirs = os.urandom(32), X25519PrivateKey.generate()
        public = theirs.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        assert x25519(ours, public) == theirs.exchange(X25519PublicKey.from_public_bytes(x25519_public(ours)))


@pytest.mark.parametrize("public", LOW_ORDER)
def test_keys_of_low_order_give_nothing(public: str) -> None:
    assert x25519(os.urandom(32), bytes.fromhex(public)) is None


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_keys_have_32_bytes(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        seal(key, 0, b"", b"")
    with pytest.raises(ValueError, match="32 bytes"):
        unseal(key, 0, bytes(16), b"")
    with pytest.raises(ValueError, match="32 bytes"):
        x25519(key, bytes(32))
    with pytest.raises(ValueError, match="32 bytes"):
        x25519(bytes(32), key)
    with pytest.raises(ValueError, match="32 bytes"):
        x25519_public(key)
