"""Prints what p2pcore needs at run time with all its extras, a requirement a line.

Comes in: pyproject.toml of the current folder; "--lowest" or "--newest". Goes out: lines for `pip install
-r`. Installing them first lets p2pcore itself be built without isolation while they still build as they like.
--lowest pins each to the version its ">=" names; --newest leaves out the upper bounds.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_LOWEST = re.compile(r"^([\w.-]+)>=([\w.]+).*$")


def lowest(requirement: str) -> str:
    """ "a>=1.5,<2" -> "a==1.5". Raises ValueError: it names no lowest version."""
    if not (found := _LOWEST.match(requirement)):
        raise ValueError(f"{requirement} does not begin with its lowest version, as in name>=1.0")
    return f"{found[1]}=={found[2]}"


def newest(requirement: str) -> str:
    """ "a>=1.5,<2" -> "a>=1.5"."""
    return requirement.partition(",")[0]


def requirements(option: str = "") -> list[str]:
    """What `option` asks for; without one, as pyproject.toml has it."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    needed = project["dependencies"] + [each for each in extras if not each.startswith("p2pcore[")]
    change = {"--lowest": lowest, "--newest": newest}.get(option, str)
    return [change(each) for each in needed]


if __name__ == "__main__":
    print(*requirements(*sys.argv[1:2]), sep="\n")
