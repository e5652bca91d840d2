"""The version of p2pcore: what the build and the agent string of identify read."""

__version__ = "0.1.0"
