"""Makes a raw connection secure and multiplexed.

Comes in: raw connections and listeners, security protocols, muxers. Goes out: upgraded connections; a
listener queues them for accept, with a bound on the queue. Never names a concrete security protocol, muxer
or transport. `swarm` and `host` import it.
"""
