"""Fixtures for several tests of WebSocket."""

from __future__ import annotations

from pathlib import Path

import pytest
from websocket_nodes import CERTIFICATE


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignores proxies in the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the certificate that listeners of these tests show."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(CERTIFICATE.pem)
    return path
