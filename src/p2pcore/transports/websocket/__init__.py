"""WebSocket, with TLS and without: `/tcp/N/ws`, `/tcp/N/tls/ws`, `/tcp/N/wss`.

Comes in: a TCP connection. Goes out: a connection that carries its bytes in WebSocket frames.
The frames themselves are in `_fast/chain/websocket.pyx`.
"""
