#!/usr/bin/env python3
"""The browser peer: js-libp2p in a page of headless Chromium, by the contract of ../README.md.

Comes in: the bundle of ../js/page.js, the browser, then arguments as for every peer (`ping` and `echo` only).
Goes out: the page's JSON lines, exit 0 if it did all it should, else one line that begins with ERROR. Serves
one page on loopback and nothing else, and takes browser and profile away again. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

STALL_S = 60.0
"""Nothing from the page for so long ends the operation."""
STOP_S = 10.0
MAX_REPORT_BYTES = 65536
PAGE = b'<!doctype html><meta charset="utf-8"><script type="module" src="/page.js"></script>'
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--ignore-certificate-errors",
)
"""No sandbox, because that needs what containers lack; certificates of a test are nobody's."""

Report = dict[str, Any]


class Failed(Exception):
    """The page did not do what it should."""


class Handler(BaseHTTPRequestHandler):
    """Serves the page, and takes its reports."""

    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer(200, "text/html", PAGE)
        elif path == "/page.js":
            self._answer(200, "text/javascript", self.server.bundle)
        else:
            self._answer(404, "text/plain", b"")

    def do_POST(self) -> None:
        size = min(int(self.headers.get("content-length", 0)), MAX_REPORT_BYTES)
        self.server.reports.put(json.loads(self.rfile.read(size)))
        self._answer(200, "text/plain", b"")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Standard error is for failures."""


class Server(ThreadingHTTPServer):
    """One page on a free port of loopback; what it reports, in a queue."""

    daemon_threads = True

    def __init__(self, bundle: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bundle = bundle.read_bytes()
        self.reports: queue.Queue[Report] = queue.Queue()
        Thread(target=self.serve_forever, daemon=True).start()

    def url(self, query: dict[str, Any]) -> str:
        return f"http://127.0.0.1:{self.server_port}/?{urlencode(query)}"


@contextmanager
def browsing(browser: str, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """The browser at `url`, with a profile of its own for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="p2pcore-browser-", ignore_cleanup_errors=True) as profile:
        command = [browser, *FLAGS, f"--user-data-dir={profile}", url]
        errors = Path(profile, "errors").open("w+b")  # noqa: SIM115
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            errors.close()


def follow(reports: queue.Queue[Report]) -> None:
    """Prints what the page reports until it is done. Raises Failed."""
    while True:
        try:
            report = reports.get(timeout=STALL_S)
        except queue.Empty:
            raise Failed(f"the page said nothing for {STALL_S:g} s") from None
        if "error" in report:
            raise Failed(report["error"])
        if "done" in report:
            return
        print(json.dumps(report), flush=True)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="peer.py", allow_abbrev=False)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("browser")
    parser.add_argument("op", choices=["ping", "echo"])
    parser.add_argument("-to", required=True)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("-bytes", type=int, default=1 << 30)
    options = parser.parse_args(arguments)
    query = {"op": options.op, "to": options.to, "n": options.n, "bytes": options.bytes}
    with Server(options.bundle) as server, browsing(options.browser, server.url(query)):
        follow(server.reports)
        server.shutdown()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Failed, OSError, ValueError) as failure:
        print(f"ERROR {failure or repr(failure)}".replace("\n", " "), file=sys.stderr)
        sys.exit(1)
