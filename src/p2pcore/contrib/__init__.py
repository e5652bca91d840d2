"""Bridges to packages that p2pcore does not need: prometheus_client, OpenTelemetry, orjson.

Comes in: a host. Goes out: what the other package takes. Each module imports its package when it is imported
itself, and says in one line what to install if it is missing. Nobody in p2pcore imports from here but `cli`.
"""
