"""Compiled code: everything that runs for each byte, frame or stream.

codec: addresses and ids as text and bytes. loop: what the connections of one event loop share. chain: layers
of a connection. crypto: handshakes and records. mux: yamux, mplex and streams. A folder imports only the
folders before it (docs/decisions/0013). Each .pyx has a .pxd for Cython and a .pyi for Python.
"""
