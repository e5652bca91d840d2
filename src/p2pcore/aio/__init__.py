"""Tools for asyncio: bounded places, thresholds, pauses that grow, awaits that may already be done.

Comes in: an event loop, numbers. Goes out: things to wait for. Never knows what it is used for.
Anybody above `_fast` may import it.
"""
