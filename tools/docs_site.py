"""What the documentation site needs besides its pages: MkDocs calls these functions (`hooks` of mkdocs.yml).

Comes in: pages, with links that are right in the repository. Goes out: the same pages with links that are right
on the site: what is no page of it leads to the repository. Some files of the repository become pages. It opens
no socket and imports nothing of p2pcore.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://github.com/p2pcore/p2pcore"

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/README.md": "examples.md",
}
"""Files outside docs/ that are pages of the site too."""

_SOURCES = {page: source for source, page in PAGES.items()}
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are files of the repository, and those that are made."""
    made = {page: (ROOT / source).read_text() for source, page in PAGES.items()}
    made["decisions/index.md"] = decisions()
    made["reference/limits.md"] = constants("Bounds", ROOT / "src" / "p2pcore" / "limits.py")
    made["reference/codes.md"] = constants("Codes", ROOT / "src" / "p2pcore" / "codes.py")
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turns each link to a file into one that is right on the site."""
    uri = page.file.src_uri
    source = _SOURCES.get(uri, f"docs/{uri}")
    return _LINK.sub(lambda match: match[1] + site_link(source, uri, match[2]) + match[3], markdown)


def site_link(source: str, page: str, link: str) -> str:
    """Where `link` of the file `source` leads from `page`. MkDocs reports a page that is not there."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if target in PAGES:
        found = PAGES[target]
    elif target.startswith("docs/"):
        found = target.removeprefix("docs/")
    else:
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/main/{target}"
    return posixpath.relpath(found, posixpath.dirname(page) or ".")


def decisions() -> str:
    """A page that lists every decision."""
    lines = ["# Decisions", "", "Why things are as they are: what was decided, what was measured, what else there was.", ""]
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        title = path.read_text().partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines)


def constants(title: str, path: Path) -> str:
    """A page with a table for each part of a module of constants."""
    text = path.read_text()
    module = ast.parse(text)
    lines = [f"# {title}", "", ast.get_docstring(module) or "", ""]
    heads = dict(_heads(text))
    lines += [] if heads else ["| name | value |", "|---|---|"]
    for node, doc in _documented(module):
        head = next((heads.pop(line) for line in sorted(heads) if line < node.lineno), None)
        if head:
            lines += ["", f"## {head}", "", "| name | value | |", "|---|---|---|"]
        lines.append(_row(ast.unparse(node.target), ast.get_source_segment(text, node.value) or "", doc))
    return "\n".join(lines) + "\n"


def _heads(text: str) -> Iterator[tuple[int, str]]:
    """The lines like "# -- negotiation ----", by number."""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"# -- (.+?) -+$", line):
            yield number, match[1][0].upper() + match[1][1:]


def _documented(module: ast.Module) -> Iterator[tuple[ast.AnnAssign, str]]:
    """The public constants of `module`, each with the text below it."""
    for node, after in zip(module.body, [*module.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and node.value is not None and not ast.unparse(node.target).startswith("_"):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            yield node, " ".join(str(after.value.value).split()) if is_text else ""  # type: ignore[union-attr]


def _row(name: str, value: str, doc: str) -> str:
    cells = [f"`{name}`", f"`{value}`", doc.replace("|", r"\|")]
    return "| " + " | ".join(cells if doc else cells[:2]) + " |"
