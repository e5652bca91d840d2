"""Compiled: the chain of layers that a connection is, its bottoms, and WebSocket frames."""
