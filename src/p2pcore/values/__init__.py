"""Multiaddrs, peer ids, keys, signed records, and the version: values that name and identify things.

Comes in: untrusted text and bytes. Goes out: immutable values that have passed every check.
Never opens a socket, reads a clock or waits. Every module above `_fast` may import it.
"""
