"""A program frozen by PyInstaller works, with the hooks that the package brings.

Skipped where PyInstaller is not installed, or cannot see p2pcore: it needs a wheel, not an editable install.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import p2pcore
from harness import seconds
from p2pcore._pyinstaller import get_hook_dirs

APPLICATION = """
from p2pcore import PSK, Host, KeyType, PrivateKey, run

ADDRS = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws", "/memory/7"]


async def main():
    for security in ("noise", "tls", "plaintext"):
        for muxer in ("yamux", "mplex"):
            options = {"security": [security], "muxers": [muxer]}
            server, dialer = Host(listen=ADDRS, echo=True, **options), Host(listen=[], **options)
            async with server, dialer:
                for addr in server.addrs_with_peer:
                    conn = await dialer.swarm.dial_addr(addr)
                    assert await dialer.echo(conn, b"hello") == b"hello"
                await dialer.identify(conn)
    options = {"psk": PSK.generate(), "echo": True}
    key = PrivateKey.generate(KeyType.ECDSA)
    async with Host(key, **options) as server, Host(listen=[], **options) as dialer:
        assert await dialer.echo(server.addrs_with_peer[0], b"hello") == b"hello"


run(main())
print("frozen and well")
"""

IS_INSTALLED = "site-packages" in p2pcore.__file__


def test_pyinstaller_finds_the_hooks() -> None:
    (found,) = [each for each in entry_points(group="pyinstaller40") if each.value.startswith("p2pcore.")]
    assert found.load()() == get_hook_dirs()
    hooks = sorted(path.name for path in Path(get_hook_dirs()[0]).glob("hook-*.py"))
    assert hooks == ["hook-p2pcore.cli.py", "hook-p2pcore.py"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("PyInstaller") is None, reason="needs PyInstaller")
@pytest.mark.skipif(not IS_INSTALLED, reason="PyInstaller cannot look into an editable install")
@pytest.mark.parametrize(
    ("program", "arguments", "line"),
    [
        (APPLICATION, (), "frozen and well"),
        ("import p2pcore.cli, sys\nsys.exit(p2pcore.cli.main())", ("id", "new"), "peer id"),
    ],
    ids=["host", "command"],
)
def test_a_frozen_program_runs(program: str, arguments: tuple[str, ...], line: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program)
    freeze = [sys.executable, "-m", "PyInstaller", "--log-level", "WARN", "--onedir", "program.py"]
    built = subprocess.run(
        freeze, cwd=tmp_path, capture_output=True, text=True, timeout=seconds(600), check=False
    )
    assert built.returncode == 0, built.stderr
    frozen = str(tmp_path / "dist" / "program" / "program")
    done = subprocess.run(
        [frozen, *arguments], cwd="/", capture_output=True, text=True, timeout=seconds(60), check=False
    )
    assert done.returncode == 0, done.stderr
    assert line in done.stdout
