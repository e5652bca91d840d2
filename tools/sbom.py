"""Writes what a wheel of p2pcore is made of and needs: a software bill of materials in CycloneDX 1.6.

Comes in: pyproject.toml beside this folder, the version of p2pcore and of Cython. Goes out: a JSON file, the
same for the same input. CMakeLists.txt calls it; the wheel has the file in its .dist-info/sboms/ (PEP 770).
What users install beside p2pcore has no version here, but the requirement as pyproject.toml has it.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)")


def component(requirement: str, scope: str) -> dict[str, Any]:
    """A package that p2pcore needs (scope "required") or may use ("optional")."""
    found = _REQUIREMENT.match(requirement)
    assert found is not None, requirement
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', found[1]).lower()}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": found[1],
        "purl": purl,
        "scope": scope,
        "properties": [{"name": "p2pcore:requirement", "value": requirement}],
    }


def cython(version: str) -> dict[str, Any]:
    """The compiled modules contain code that Cython generates."""
    purl = f"pkg:pypi/cython@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": "Cython",
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "description": "its utility code is compiled into every extension module",
    }


def bill(project: dict[str, Any], version: str, cython_version: str) -> dict[str, Any]:
    """The whole document."""
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    needed = [component(each, "required") for each in project["dependencies"]]
    optional = [component(each, "optional") for each in extras if not each.startswith("p2pcore[")]
    inside = cython(cython_version)
    ours = f"pkg:pypi/p2pcore@{version}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": ours,
                "name": "p2pcore",
                "version": version,
                "purl": ours,
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": [inside, *needed, *optional],
        "dependencies": [
            {"ref": ours, "dependsOn": [inside["bom-ref"], *(each["bom-ref"] for each in needed)]}
        ],
    }


def main(version: str, cython_version: str, out: str) -> None:
    """Writes the file `out`."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    document = bill(tomllib.loads(text)["project"], version, cython_version)
    Path(out).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
