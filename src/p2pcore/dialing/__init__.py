"""How a peer is reached: addresses are resolved, filtered, ranked and tried; those that fail are remembered.

Comes in: peer ids and multiaddrs. Goes out: one connection, or a DialError that says what failed at each
address. Never names a concrete transport. Only `swarm` uses it.
"""
