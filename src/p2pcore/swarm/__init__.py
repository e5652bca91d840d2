"""The connections of one node: its listeners, connections, stream handlers and observers.

Comes in: transports, upgraded connections, handlers. Goes out: connections, negotiated streams, events.
Never names a concrete transport. Imports `upgrade` and `dialing`; `host` and `protocols` import it.
"""
