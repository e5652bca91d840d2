"""Security protocols: handshakes; the record layer is in _fast."""
