"""How a peer is dialled: its addresses are resolved, filtered, ranked and tried. Failures are remembered.

Comes in: peer ids and multiaddrs. Goes out: one connection, or a DialError with the failure of each address.
Never names a concrete transport. Only `swarm` uses it.
"""
