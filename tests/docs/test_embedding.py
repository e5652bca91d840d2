"""The FastAPI application of docs/embedding.md starts its host, serves its route, and ends in order.

Comes in: the page. Goes out: a failure if the application does not do what the page says.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import httpx
import pytest

from harness import looped
from p2pcore import Host, PrivateKey

PAGE = Path(__file__).parent.parent.parent / "docs" / "embedding.md"

pytestmark = pytest.mark.source


@looped
async def test_a_route_asks_another_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = re.search(r"^```python\n# app.py\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert program is not None
    text = program[1].replace("/ip4/0.0.0.0/tcp/4001", "/ip4/127.0.0.1/tcp/0")
    (tmp_path / "app.py").write_text(text)
    PrivateKey.generate().write(tmp_path / "node.key")
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path("app.py")
    app = found["app"]
    async with app.router.lifespan_context(app), Host() as other:
        other.set_stream_handler(found["PROTOCOL"], found["shout"])
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            peer = str(other.addrs_with_peer[0])
            answer = await client.get("/shout", params={"peer": peer, "text": "hello"})
            assert answer.json() == {"answer": "HELLO"}
            nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{PrivateKey.generate().peer_id()}"
            assert (await client.get("/shout", params={"peer": nobody, "text": "x"})).status_code == 502
        host = app.state.host
        assert host.peer_id == PrivateKey.read("node.key").peer_id()
    assert host.swarm.is_closed
