"""Compiled: text and byte forms of numbers, multibase, peer ids and multiaddrs. No I/O."""
