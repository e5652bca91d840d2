"""Tools for asyncio: intakes, descriptors, thresholds, callbacks, awaits that may
already be done, TLS handshakes.

None of them knows what it is used for. Every module above `_fast` may import them.
"""
