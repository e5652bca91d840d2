"""SslEnd: an SSL object of our own, which is freed with it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from OpenSSL import SSL

from harness import HANG_S, seconds
from p2pcore._fast.crypto.openssl import SslEnd
from p2pcore._fast.crypto.tls import take_output
from p2pcore._fast.crypto.tls_handshake import chain_len, chosen_protocol, give_input


def test_it_needs_a_context() -> None:
    with pytest.raises(TypeError):
        SslEnd(None, True)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        SslEnd(object(), True)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_server", [False, True])
def test_it_has_what_is_used_of_a_connection(is_server: bool) -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    end = SslEnd(context, is_server)
    assert end.get_context() is context
    assert take_output(end) == b""
    give_input(end, b"\x16\x03\x01")
    assert (chain_len(end), chosen_protocol(end)) == (0, b"")


@pytest.mark.slow
def test_it_frees_its_memory() -> None:
    code = """
    from pathlib import Path
    from OpenSSL import SSL
    from p2pcore._fast.crypto.openssl import SslEnd
    from p2pcore._fast.crypto.tls_handshake import give_input
    context = SSL.Context(SSL.TLS_METHOD)

    def pages():
        return int(Path("/proc/self/statm").read_text().split()[1])

    def many():
        for number in range(2000):
            give_input(SslEnd(context, bool(number % 2)), bytes(2000))

    many()
    before = pages()
    many()
    print(pages() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=seconds(2 * HANG_S),
        check=True,
    )
    assert int(done.stdout) < 500, "2,000 ends that are not freed have 4,000 pages"
