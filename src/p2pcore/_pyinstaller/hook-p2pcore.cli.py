"""The commands of `p2pcore`, which are loaded by name; PyInstaller reads `hiddenimports`."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("p2pcore.cli")
