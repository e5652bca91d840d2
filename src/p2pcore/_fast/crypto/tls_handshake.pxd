# See tls_handshake.pyx.
