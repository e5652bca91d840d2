"""What one node may hold, and what goes first when it is too much.

Limits, counts for each block of addresses, the connection manager.

Comes in: Limits, connections that come and go. Goes out: refusals that say who, how much, and which option;
closings. The packages `swarm`, `host` and above import it; it imports none of them.
"""
