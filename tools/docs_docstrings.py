"""Makes docstrings ready for the site: griffe calls this for each object (`extensions` in mkdocs.yml).

Comes in: the docstrings of p2pcore. Goes out: the same, where `Returns:` or `Raises:` within a line is bold.
A section of its own, whose lines are indented below the word, stays as it is.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_INLINE = re.compile(r"(?<![\w*])(Returns|Raises|Yields|Source): (?=\S)")


class Inline(Extension):
    """Sets the words that begin a part of a docstring in bold, where the part is one line."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _INLINE.sub(r"**\1:** ", obj.docstring.value)
