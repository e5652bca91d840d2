"""What a node may use: limits, counts for each block of addresses, the connection manager.

Comes in: Limits, connections that come and go. Goes out: refusals that say who, how much, and which option.
The packages `swarm`, `host` and above import it.
"""
