"""Compiled hot paths; every .pyx has its .pxd (C side) and .pyi (Python side)."""
