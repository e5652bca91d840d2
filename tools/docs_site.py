"""What the documentation site needs besides its pages: `hooks` of mkdocs.yml, functions that MkDocs calls.

Comes in: pages as they are in the repository. Goes out: pages of the site. A link that leads to no page leads
to the repository. A comment such as `<!-- decisions -->` becomes what FILLERS makes of it. Some files outside
docs/ become pages. It opens no socket and imports nothing of p2pcore.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
_FILLED = re.compile(r"^<!-- (\w+)(?:: (.+?))? -->$", re.M)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are files outside docs/."""
    from mkdocs.structure.files import File  # here, so that tests need no MkDocs

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fills the page, and turns each link to a file into one that is right on the site."""
    uri = page.file.src_uri
    source = _SOURCES.get(uri, f"docs/{uri}")
    markdown = _FILLED.sub(lambda match: FILLERS[match[1]](match[2] or ""), markdown)
    return _LINK.sub(lambda match: match[1] + site_link(source, uri, match[2]) + match[3], markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Keeps the theme from asking GitHub about the repository whenever somebody opens a page."""
    return output.replace(' data-md-component="source"', "")


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


def decisions(_: str = "") -> str:
    """A list of all decisions, with links from their folder."""
    paths = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    titles = [re.sub(r"^# 0*(\d+)[.:] ", r"\1. ", path.read_text().partition("\n")[0]) for path in paths]
    return "\n".join(f"- [{title}]({path.name})" for title, path in zip(titles, paths, strict=True))


def benchmarks(wanted: str) -> str:
    """The rows of docs/benchmarks.md whose names are in `wanted`, separated by semicolons."""
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    names = ["row", *wanted.split("; ")]
    rows = [next(line for line in text.splitlines() if line.startswith(f"| {name} |")) for name in names]
    cells = [row.strip("| ").split(" | ") for row in rows]
    shown = [[row[0], f"**{row[1]}**", *row[2:3], *row[-2:]] for row in cells]  # without ratio and target
    lines = ["| " + " | ".join(row) + " |" for row in shown]
    return "\n".join([lines[0].replace("| row |", "| |"), "|---|---:|---:|---:|---:|", *lines[1:]])


def constants(path: str) -> str:
    """A table for each part of a module of constants."""
    text = (ROOT / path).read_text()
    heads = dict(_heads(text))
    lines = [] if heads else ["| name | value |", "|---|---|"]
    for node, doc in _documented(ast.parse(text)):
        for line in [line for line in heads if line < node.lineno]:
            lines += ["", f"## {heads.pop(line)}", "", "| name | value | |", "|---|---|---|"]
        assert node.value is not None
        name = ast.unparse(node.target).replace("_", "_<wbr>")
        value = ast.get_source_segment(text, node.value)
        cells = [f"<code>{name}</code>", f"`{value}`", doc.replace("|", r"\|")]
        lines.append("| " + " | ".join(cells if doc else cells[:2]) + " |")
    return "\n".join(lines)


def _heads(text: str) -> Iterator[tuple[int, str]]:
    """The lines like "# -- negotiation ----", by number."""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"# -- (.+?) -+$", line):
            yield number, match[1][0].upper() + match[1][1:]


def _documented(module: ast.Module) -> Iterator[tuple[ast.AnnAssign, str]]:
    """The public constants of `module`, each with the text below it."""
    for node, after in zip(module.body, [*module.body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.AnnAssign) and node.value and not ast.unparse(node.target).startswith("_"):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            yield node, " ".join(str(after.value.value).split()) if is_text else ""


FILLERS = {"decisions": decisions, "benchmarks": benchmarks, "constants": constants}
"""What stands in the place of a comment with this name, from the text behind its colon."""
