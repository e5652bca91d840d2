"""TCP, and the port that several kinds of connections share.

Comes in: `/ip4/…/tcp/N`, `/ip6/…/tcp/N`. Goes out: connections; listeners on a port of their own, or on one
that they share.
"""
