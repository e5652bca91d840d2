"""Host names: one normal form of each, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from p2pcore import limits
from p2pcore.errors import AddressError
from p2pcore.values.host_name import normal_host
from p2pcore.values.multiaddr import Multiaddr


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("example.com", "example.com"),
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("localhost.", "localhost"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.Example.", "xn--bcher-kva.example"),
        ("bücher。example", "xn--bcher-kva.example"),  # a full stop of Chinese and Japanese
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_service.example", "_service.example"),
        ("*.example.com", "*.example.com"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
    ],
)
def test_a_name_has_one_normal_form(text: str, normal: str) -> None:
    assert normal_host(text) == normal
    assert normal_host(normal) == normal


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a..b", ".a", "a.."),
        *("x" * 64, "ü" * 63, ".".join(["x" * 63] * 4)),
        *("a b", "a/b", "a%41", "a@b", "a\r\nHost: b", "a#b", "a?b", "[::1]", "a\x00b", "ü b"),
    ],
)
def test_what_is_no_host_name_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="not a host name"):
        normal_host(text)


@given(st.text(max_size=80))
def test_every_normal_form_is_ascii_bounded_and_its_own(text: str) -> None:
    try:
        normal = normal_host(text)
    except AddressError:
        return
    assert normal.isascii()
    assert len(normal) <= limits.MAX_HOST_NAME_BYTES
    assert normal_host(normal) == normal


@pytest.mark.parametrize("name", ["localhost", "a.localhost", "printer.local", "x.test"])
def test_a_dot_at_the_end_does_not_make_a_local_name_public(name: str) -> None:
    assert not Multiaddr(f"/dns4/{name}./tcp/1").is_public
    assert Multiaddr(f"/dns4/{name}./tcp/1").is_private is Multiaddr(f"/dns4/{name}/tcp/1").is_private
