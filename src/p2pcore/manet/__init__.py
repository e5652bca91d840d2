"""Sockets with multiaddrs, as go-libp2p's package of this name.

Comes in: multiaddrs and sockets. Goes out: raw connections, raw listeners and packet connections with a
multiaddr at each end. Never secures or multiplexes. `transports`, `upgrade`, `swarm` and `workers`
import it.
"""
