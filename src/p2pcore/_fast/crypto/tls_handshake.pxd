# OpenSSL's handshake, moved by C calls, with the decisions of libp2p's TLS left to Python.
