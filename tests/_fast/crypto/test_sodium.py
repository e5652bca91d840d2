"""The C functions of libsodium beside the same of `cryptography`, and their bad input.

Comes in: random keys and messages. Goes out: equality. Vectors are those of tests/security/test_noise.py.
"""

from __future__ import annotations

import os
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, strategies as st

from p2pcore._fast.crypto.noise import SymmetricState
from p2pcore._fast.crypto.sodium import ed25519_verify, seal, unseal, x25519, x25519_public
from security.noise_vectors import LOW_ORDER

NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"


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


def test_ed25519_signatures_are_those_of_another_library_and_nothing_else() -> None:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = key.sign(b"message")
    assert ed25519_verify(public, b"message", signature)
    assert not ed25519_verify(public, b"massage", signature)
    for size in (0, 63, 65):
        assert not ed25519_verify(public, b"message", (signature + b"x")[:size])
    for at in range(64):
        forged = bytearray(signature)
        forged[at] ^= 1
        assert not ed25519_verify(public, b"message", bytes(forged))
    with pytest.raises(ValueError, match="32 bytes"):
        ed25519_verify(public[:31], b"message", signature)


@given(st.binary(max_size=200), st.lists(st.binary(max_size=150), max_size=4))
def test_hashes_and_keys_of_a_handshake_are_those_of_other_libraries(
    prologue: bytes, parts: list[bytes]
) -> None:
    state = SymmetricState(prologue)
    h = sha256(NAME + prologue).digest()
    ck = NAME
    for part in parts:
        state.mix_hash(part)
        h = sha256(h + part).digest()
        state.mix_key(part)
        both = HKDF(SHA256(), 64, ck, None).derive(part)
        ck = both[:32]
        assert (state.h, state.ck, state.key) == (h, ck, both[32:])
    both = HKDF(SHA256(), 64, ck, None).derive(b"")
    assert state.split() == (both[:32], both[32:])
