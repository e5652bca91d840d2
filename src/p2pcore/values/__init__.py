"""What things are called: multiaddrs, peer ids, keys, signed records, and the version of p2pcore.

Comes in: untrusted text and bytes. Goes out: immutable values that have passed every check.
Never opens a socket, reads a clock or waits. Anybody above `_fast` may import it.
"""
