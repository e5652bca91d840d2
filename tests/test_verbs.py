"""Methods of the Python layers keep to the verbs in the table of endings (class Layer)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import p2pcore

SOURCE = Path(p2pcore.__file__).parent
FOLDERS = ("swarm", "dialing", "upgrade", "workers", "cli")
SOURCES = sorted(path for folder in FOLDERS for path in (SOURCE / folder).glob("*.py"))
RETIRED = {"abandon", "end", "farewell", "finish", "give_up", "leave", "quit", "stop", "terminate"}
"""Verbs that say the same as one of the table, or several things at once."""


@pytest.mark.source
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_method_of_these_folders_has_a_retired_verb_for_its_name(path: Path) -> None:
    text = path.read_text()
    methods = {name.strip("_") for name in re.findall(r"^    (?:async )?def (\w+)\(", text, re.MULTILINE)}
    assert methods & RETIRED == set()
    assert set(re.findall(r"^(\w+) = logging\.getLogger", text, re.MULTILINE)) <= {"logger"}
