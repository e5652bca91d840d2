"""Ways to listen and to dial: TCP, WebSocket, UNIX sockets, memory.

Comes in: multiaddrs and an upgrader. Goes out: upgraded connections and listeners. A transport that runs over
another one takes it as an argument. Only `host` and `compose` import a transport by name.
"""
