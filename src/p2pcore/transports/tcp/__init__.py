"""TCP, and ports that several kinds of connections share.

Comes in: `/ip4/…/tcp/N`, `/ip6/…/tcp/N`. Goes out: connections; listeners, each on its own port or on a
shared one.
"""
