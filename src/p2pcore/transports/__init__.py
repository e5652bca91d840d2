"""Ways to listen and to dial: TCP, WebSocket, UNIX sockets, memory.

Comes in: multiaddrs and an upgrader. Goes out: upgraded connections and listeners. A transport that runs on
another one is given it. Only `host` and `compose` import a transport by name.
"""
