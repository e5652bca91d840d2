"""Circuit relay v2: dialling and listening through a relay, and the relay itself.

Comes in: addresses with /p2p-circuit, connections to relays. Goes out: raw connections that run over a
stream of another connection. The swarm is an argument; only `host` imports this package by name.
"""
