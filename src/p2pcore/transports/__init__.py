"""Transports: one kind of address each."""
