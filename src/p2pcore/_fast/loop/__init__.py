"""Compiled: what the connections of one event loop share: buffers, timers, the flush, deadlines, waiting."""
