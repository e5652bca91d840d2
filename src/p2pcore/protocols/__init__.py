"""Application protocols. Each uses only the public stream API."""
