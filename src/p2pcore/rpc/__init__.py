"""rpc: calls with typed requests and answers, over streams. docs/rpc.md has the wire format.

Comes in: methods and their codecs, anything that opens and serves streams. Goes out: answers, or RpcError. It
uses only the public interface of streams, and never looks into a request or an answer. Level 5.
"""

from __future__ import annotations

from p2pcore.codes import RpcCode as Code
from p2pcore.errors import RpcError, RpcTimeout, RpcUnavailable
from p2pcore.rpc.client import Client, Items
from p2pcore.rpc.method import BYTES, Codec, Method, StreamMethod
from p2pcore.rpc.places import Bounds
from p2pcore.rpc.retry import Retry
from p2pcore.rpc.service import Call, Service

__all__ = [
    "BYTES",
    "Bounds",
    "Call",
    "Client",
    "Code",
    "Codec",
    "Items",
    "Method",
    "Retry",
    "RpcError",
    "RpcTimeout",
    "RpcUnavailable",
    "Service",
    "StreamMethod",
]
