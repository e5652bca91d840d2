"""Attacks on a node by peers made by hand, and what an honest client beside them sees.

Comes in: rows (rows.py). Goes out: figures of each row, at rest and under attack. Each side is a process of
its own; nothing leaves the loopback device or a network namespace made for the run. Everything has an end.
"""
