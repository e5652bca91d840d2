"""Runs the limit: `run.py LIBRARY listen|OP [options]`.

Comes in: what `limit.build` has built. Goes out: what its C prints. Python only loads it, because the
libsodium of PyNaCl, which p2pcore uses, can be loaded in no other process.
"""

import ctypes
import sys

from nacl import _sodium

words = [_sodium.__file__, *sys.argv[2:]]
given = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
sys.exit(ctypes.CDLL(sys.argv[1]).limit(len(words), given))
