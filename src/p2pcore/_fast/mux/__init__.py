"""Compiled: yamux and mplex, their streams, and what can be built on a stream without a task."""
