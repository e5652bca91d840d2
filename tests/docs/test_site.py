"""The documentation site is complete: each page has its place, each public name is in the reference.

Comes in: mkdocs.yml, docs/, tools/docs_site.py. Goes out: a failure that names what is missing. It does not
build the site: `make docs` does.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import p2pcore
from p2pcore import errors, fleet, rpc, streams, testing

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"

pytestmark = pytest.mark.source


def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "tools" / "docs_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def places(nav: Any) -> Iterator[str]:
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(value, str):
            yield value
        else:
            yield from places(value)


def test_each_page_has_one_place() -> None:
    listed = list(places(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} | set(site().PAGES.values())
    assert sorted(listed) == sorted(page for page in pages if not re.match("decisions/0", page))


def test_each_public_name_is_in_the_reference_once() -> None:
    text = "\n".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    shown = re.findall(r"^::: ([\w.]+)$", text, re.M)
    assert len(shown) == len(set(shown))
    wanted = {f"p2pcore.{name}" for name in p2pcore.__all__ if name != "__version__"}
    wanted -= {name for name in wanted if hasattr(errors, name.removeprefix("p2pcore."))}  # on another page
    for module in (fleet, rpc, streams, testing):
        wanted |= {f"{module.__name__}.{name}" for name in module.__all__}
    assert sorted((wanted | {"p2pcore.errors", "p2pcore.swarm.events"}) - set(shown)) == []


@pytest.mark.parametrize(
    ("source", "page", "link", "leads_to"),
    [
        ("docs/a.md", "a.md", "b.md", "b.md"),
        ("docs/reference/a.md", "reference/a.md", "../b.md", "../b.md"),
        ("docs/a.md", "a.md", "../CHANGELOG.md", "changelog.md"),
        ("CHANGELOG.md", "changelog.md", "docs/limits.md", "limits.md"),
        (
            "examples/README.md",
            "examples.md",
            "one.py",
            "https://github.com/p2pcore/p2pcore/blob/main/examples/one.py",
        ),
        ("docs/a.md", "a.md", "../interop", "https://github.com/p2pcore/p2pcore/tree/main/interop"),
    ],
)
def test_a_link_leads_to_a_page_or_the_repository(source: str, page: str, link: str, leads_to: str) -> None:
    assert site().site_link(source, page, link) == leads_to


def test_what_fills_pages_is_there() -> None:
    found = site()
    for path in DOCS.rglob("*.md"):
        for name, given in found._FILLED.findall(path.read_text()):
            assert found.FILLERS[name](given).count("\n") > 5


def test_bounds_have_their_value_and_reason() -> None:
    rows = site().constants("src/p2pcore/limits.py").splitlines()
    row = next(row for row in rows if "MAX_<wbr>MULTIADDR_<wbr>COMPONENTS" in row)
    assert re.search(r"\| `32` \| Components of one multiaddr", row)
    assert "## Negotiation" in rows
