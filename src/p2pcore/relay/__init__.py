"""Circuit relay v2: dialling and listening through a relay, and being one.

Comes in: addresses with /p2p-circuit, connections to relays. Goes out: raw connections that run over a
stream of another connection. What it needs of the swarm is an argument; only `host` imports it by name.
"""
