"""Regression gates that do not look at a clock; see docs/gates.md.

Run as `python -m gates` with bench/ on the path.
"""
