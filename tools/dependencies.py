"""Prints what p2pcore needs at run time, a requirement a line.

Comes in: pyproject.toml of the current folder. Goes out: lines for `pip install -r`. Installing them first
lets p2pcore itself be built without isolation while they still build as they like.
"""

import tomllib
from pathlib import Path

print(*tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"], sep="\n")
