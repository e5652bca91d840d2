"""The connections of one node: who listens, who is connected, who serves which stream, who is told.

Comes in: transports, upgraded connections, handlers. Goes out: connections, negotiated streams, events.
Never names a concrete transport. Imports `upgrade` and `dialing`; `host` and `protocols` import it.
"""
