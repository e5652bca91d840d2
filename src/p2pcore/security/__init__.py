"""Security protocols: their handshakes. The record layers are in `_fast/crypto`."""
