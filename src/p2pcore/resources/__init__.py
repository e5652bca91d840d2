"""What one node may hold, and what goes first when it is too much.

Comes in: limits that the owner sets, connections. Goes out: refusals, closings. The swarm and the host use
it; it imports neither.
"""
