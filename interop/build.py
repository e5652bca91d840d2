"""Builds the peers of interop/, and the server of nats/, once, into a cache outside the clone.

Comes in: the sources beside this file, the machine's toolchains. Goes out: for each peer the command that
starts it, or the reason why there is none: no toolchain, or no access to a registry. If a peer can be fetched
but does not build, that is a fault, and raises. Never writes into the clone. Several may run at once. Uses
only the standard library.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
STEP_TIMEOUT_S = 900.0
"""For one step of a build; 150 MiB from a slow registry take minutes."""

MIN_NODE_MAJOR = 22
PAGE = "page.bundle.js"
"""The file that a browser loads: js/page.js with all its imports."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NPM_CI = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


class BuildError(RuntimeError):
    """All parts of a peer are there, but it does not build or start."""


class Unavailable(Exception):
    """This machine cannot build the peer; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer: `command` starts it. If there is no command, `reason` says why."""

    name: str
    command: tuple[str, ...] = ()
    reason: str = ""


def cache_dir() -> Path:
    """The folder for everything built here: ${P2PCORE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/p2pcore}/interop."""
    chosen = os.environ.get("P2PCORE_CACHE")
    if chosen:
        return Path(chosen).resolve() / "interop"
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "p2pcore" / "interop"


def _sources(name: str) -> list[Path]:
    suffixes = {".go", ".mod", ".sum", ".js", ".json", ".rs", ".toml", ".lock"}
    found = (path for path in (HERE / name).rglob("*") if path.suffix in suffixes or path.name == ".npmrc")
    return sorted(path for path in found if not {"node_modules", "target"} & set(path.parts))


def _fingerprint(name: str, variant: str) -> str:
    digest = hashlib.sha256(f"{sys.platform} {platform.machine()} {variant}\n".encode())
    for path in _sources(name):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(HERE)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _run(command: list[str], cwd: Path, failure: type[Exception], **env: str) -> str:
    """Standard output of `command`; if it fails, raises `failure` with its last lines."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STEP_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise failure(f"{' '.join(command[:3])}: {error}") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise failure(f"{' '.join(command[:3])} failed: {' / '.join(words)}")
    return done.stdout


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"{name} is not installed")
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lets one builder work on a peer at a time. The kernel releases the lock of a builder that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _built_once(name: str, make: Callable[[Path], None], variant: str = "") -> Path:
    """The directory that `make` has filled, now or earlier. It exists only when it is complete."""
    root = cache_dir()
    place = root / f"{name}-{_fingerprint(name, variant)}"
    with _locked(root / f"{name}.lock"):
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as scratch:
                work = Path(scratch) / name
                work.mkdir()
                make(work)
                work.rename(place)
    return place


def _copy_sources(name: str, work: Path) -> None:
    for path in _sources(name):
        target = work / path.relative_to(HERE / name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _make_go(work: Path) -> None:
    go = _tool("go")
    _run([go, "mod", "download"], HERE / "go", Unavailable)
    build = [go, "build", "-mod=readonly", "-trimpath", "-o", str(work / "gopeer"), "."]
    _run(build, HERE / "go", BuildError, CGO_ENABLED="0")


def _make_nats(work: Path) -> None:
    go = _tool("go")
    _run([go, "mod", "download"], HERE / "nats", Unavailable)
    build = [go, "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", str(work / "nats-server")]
    _run([*build, "github.com/nats-io/nats-server/v2"], HERE / "nats", BuildError, CGO_ENABLED="0")


def _make_rust(work: Path) -> None:
    cargo = _tool("cargo")
    _run([cargo, "fetch", "--locked", "-q"], HERE / "rust", Unavailable)
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".cargo-") as target:
        build = [cargo, "build", "--release", "--frozen", "-q", "--target-dir", target]
        _run(build, HERE / "rust", BuildError)
        shutil.copy2(Path(target) / "release" / "rustpeer", work / "rustpeer")


def _needs_node() -> bool:
    """True if the machine's own node is too old for js-libp2p."""
    match = re.match(r"v(\d+)\.", _run([_tool("node"), "--version"], HERE, Unavailable))
    return match is None or int(match[1]) < MIN_NODE_MAJOR


def _node(place: Path) -> str:
    """The node that was fetched with the peer, or else the machine's."""
    bundled = sorted(place.glob("runtime/node_modules/node-*/bin/node"))
    return str(bundled[0]) if bundled else _tool("node")


def _make_js(work: Path) -> None:
    npm = _tool("npm")
    _copy_sources("js", work)
    _run([npm, *NPM_CI], work, Unavailable)
    if _needs_node():
        _run([npm, *NPM_CI], work / "runtime", Unavailable)
        if not any(work.glob("runtime/node_modules/node-*")):
            raise Unavailable(f"js-libp2p needs node {MIN_NODE_MAJOR}; npm has none for this machine")
    # Loads everything the peer imports: an incomplete installation shows here, not in a test.
    _run([_node(work), "peer.js", "version"], work, BuildError)
    bundle = ["--bundle", "--format=esm", "--target=es2022", "--log-level=warning", f"--outfile={PAGE}"]
    _run([_node(work), "node_modules/esbuild/bin/esbuild", "page.js", *bundle], work, BuildError)


def _go() -> Peer:
    return Peer("go", (str(_built_once("go", _make_go) / "gopeer"),))


def _js_place() -> Path:
    return _built_once("js", _make_js, "with node" if _needs_node() else "")


def _js() -> Peer:
    place = _js_place()
    return Peer("js", (_node(place), str(place / "peer.js")))


def _browser() -> Peer:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise Unavailable(f"{BROWSERS[0]} is not installed")
    peer = str(HERE / "browser" / "peer.py")
    return Peer("browser", (sys.executable, peer, str(_js_place() / PAGE), browser))


def _rust() -> Peer:
    return Peer("rust", (str(_built_once("rust", _make_rust) / "rustpeer"),))


def _nats() -> Peer:
    return Peer("nats", (str(_built_once("nats", _make_nats) / "nats-server"),))


def _python() -> Peer:
    return Peer("python", (sys.executable, str(HERE / "python" / "peer.py")))


BUILDERS: dict[str, Callable[[], Peer]] = {"go": _go, "js": _js, "python": _python}
BROWSER_BUILDERS: dict[str, Callable[[], Peer]] = {"browser": _browser}
"""Peers that only dial. Machines without a screen seldom have them."""
BENCH_BUILDERS: dict[str, Callable[[], Peer]] = {"rust": _rust}
"""Peers for benchmarks only. They are built only on request."""
SERVER_BUILDERS: dict[str, Callable[[], Peer]] = {"nats": _nats}
"""No peers: servers for the tests of p2pcore.fleet."""
ALL_BUILDERS = BUILDERS | BROWSER_BUILDERS | BENCH_BUILDERS | SERVER_BUILDERS


def build(name: str) -> Peer:
    """The peer called `name`; builds it if necessary.

    Args:
        name: a key of `ALL_BUILDERS`.

    Returns:
        A peer with a command, or with the reason why it has none.

    Raises:
        BuildError: all its parts are there, but it does not build or start.
    """
    try:
        return ALL_BUILDERS[name]()
    except Unavailable as error:
        return Peer(name, reason=str(error))


def main(names: list[str]) -> int:
    """Builds `names` (all peers if empty). Exit status 1 if one of `names` has no command."""
    peers = [build(name) for name in names or BUILDERS]
    for peer in peers:
        print(f"{peer.name}: {' '.join(peer.command) or 'skipped: ' + peer.reason}")
    return int(bool(names) and not all(peer.command for peer in peers))


if __name__ == "__main__":
    unknown = sorted(set(sys.argv[1:]) - set(ALL_BUILDERS))
    if unknown:
        sys.exit(f"no such peer: {', '.join(unknown)}; there are {', '.join(ALL_BUILDERS)}")
    sys.exit(main(sys.argv[1:]))
