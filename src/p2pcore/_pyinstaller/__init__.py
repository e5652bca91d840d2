"""What PyInstaller must know of p2pcore, whose modules are found by name when they are first used.

PyInstaller finds this folder by the entry point `pyinstaller40`, and the hooks in it by their names. Nothing
else imports it. Source: PyInstaller's manual, "Providing PyInstaller Hooks with your Package".
"""

from __future__ import annotations

import os


def get_hook_dirs() -> list[str]:
    """The folder with the hooks."""
    return [os.path.dirname(__file__)]
