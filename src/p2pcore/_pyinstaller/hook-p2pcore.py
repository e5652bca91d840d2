"""All of p2pcore but its command, as `Host` may ask for any of it; and what compiled modules import.

PyInstaller reads `hiddenimports`. The command, with click and rich, comes with hook-p2pcore.cli where a
program imports it.
"""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_submodules

_LEFT_OUT = ("p2pcore.cli", "p2pcore.testing", "p2pcore._pyinstaller")

hiddenimports = [
    *collect_submodules("p2pcore", filter=lambda name: not name.startswith(_LEFT_OUT)),
    # PyInstaller does not see the imports of compiled modules.
    "_cffi_backend",
    "cryptography.exceptions",
    "cryptography.hazmat.primitives.ciphers.aead",
    "ctypes",
    "fcntl",
    "nacl._sodium",
    "termios",
]
