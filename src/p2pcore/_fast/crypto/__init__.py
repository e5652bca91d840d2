"""Compiled: handshakes and record layers over the libraries' ciphers; no cryptography of our own."""
