"""Every exception of p2pcore goes through pickle and copy, and comes back as it was.

A class with an argument that VALUES does not have fails here: add a value for it.
"""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pkgutil import walk_packages
from typing import Any

import pytest

import p2pcore
from key_vectors import ED25519, SECP256K1
from p2pcore import Multiaddr, PeerId, codes, errors
from p2pcore.errors import (
    DialError,
    GoAway,
    HandshakeError,
    LimitExceeded,
    ListenError,
    P2PError,
    RefusedByPeer,
    StreamReset,
    go_away_by_peer,
    reset_by_peer,
)

PEER, OTHER = PeerId(ED25519.base58), PeerId(SECP256K1.base58)
ADDR = Multiaddr("/ip4/192.0.2.1/tcp/4001")
VALUES: dict[str, Any] = {
    "is_locked": True,
    "protocols": ("/a/1", "/b/2"),
    "stage": "muxer negotiation",
    "by_peer": True,
    "detail": ": they are older",
    "message": "what went wrong",
    "args": ("what went wrong",),
    "speaks": "TLS",
    "expected": PEER,
    "actual": OTHER,
    "code": 0x1007,
    "limit": "MAX_SOMETHING",
    "used": 17,
    "maximum": 16,
    "who": "203.0.113.7",
    "setting": "Limits.max_something",
    "remote": True,
    "what": "a circuit",
    "status": 204,
    "name": "NO_RESERVATION",
    "partial": b"some",
    "point": "accept",
    "peer": PEER,
    "causes": [(ADDR, StreamReset(5, True)), (ADDR, ConnectionRefusedError(111, "Connection refused"))],
    "reason": "because",
    "num_skipped": 3,
    "cause": HandshakeError("forged"),
    "wait_s": 1.5,
    "kind": "UDP",
    "path": "peers.db",
    "index": 2,
    "headers": (("Upgrade", "websocket"),),
    "may_have_arrived": True,
}
BY_CLASS: dict[str, dict[str, Any]] = {
    "IncompleteRead": {"expected": 9},
    "JetStreamError": {"api": "STREAM.CREATE.x", "error": {"err_code": 10058, "description": "in use"}},
    "BusStreamLost": {"reason": codes.Undelivered.GONE},
    "NotDelivered": {"reason": codes.Undelivered.GONE},
    **{key: {"code": codes.RpcCode.ABORTED} for key in ("RpcError", "RpcTimeout", "RpcUnavailable")},
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "oldest pickle": lambda error: pickle.loads(pickle.dumps(error, 0)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def all_classes() -> list[type[P2PError]]:
    for module in walk_packages(p2pcore.__path__, "p2pcore."):
        if not module.name.endswith("__main__") and "_pyinstaller" not in module.name:  # what others run
            import_module(module.name)
    return sorted(_below(P2PError), key=lambda kind: kind.__name__)


def _below(kind: type[P2PError]) -> Iterator[type[P2PError]]:
    if kind.__module__.startswith("p2pcore"):
        yield kind
    for each in kind.__subclasses__():
        yield from _below(each)


def make(kind: type[P2PError]) -> P2PError:
    """One with every argument given."""
    values = VALUES | BY_CLASS.get(kind.__name__, {})
    arguments: dict[str, Any] = {}
    if kind.__init__ is P2PError.__init__ or not inspect.isfunction(kind.__init__):
        return kind(*values["args"])
    for name, parameter in inspect.signature(kind).parameters.items():
        if name not in values:
            pytest.fail(f"VALUES has nothing for the argument {name} of {kind.__name__}")
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return kind(*values[name])
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            arguments[name] = values[name]
    return kind(**arguments)


def facts(value: Any) -> Any:
    """What must be the same: exceptions as type, text, args and attributes, at any depth."""
    if isinstance(value, BaseException):
        members = {"cause": value.__cause__, "args": value.args, **value.__dict__}
        if isinstance(value, OSError):
            members |= {"errno": value.errno, "strerror": value.strerror, "filename": value.filename}
        return type(value), str(value), {name: facts(each) for name, each in members.items()}
    if isinstance(value, tuple | list):
        return type(value), [facts(each) for each in value]
    return value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", all_classes())
def test_every_error_comes_back_as_it_was(kind: type[P2PError], way: str) -> None:
    error = make(kind)
    error.stage = "security handshake"
    error.add_note("in the security handshake with somebody")
    error.__cause__ = StreamReset(7)
    again = WAYS[way](error)
    assert facts(again) == facts(error)
    assert again.__suppress_context__ is error.__suppress_context__ is True
    assert "__cause__" not in again.__dict__


def test_every_error_of_the_tree_is_tried() -> None:
    assert set(all_classes()) >= {each for each in vars(errors).values() if inspect.isclass(each)} - {
        each for each in vars(errors).values() if inspect.isclass(each) and not issubclass(each, P2PError)
    }


@pytest.mark.parametrize("way", WAYS)
def test_an_error_of_the_system_keeps_its_number_and_its_file(way: str) -> None:
    error = ListenError(13, "Permission denied", "/run/p2p.sock")
    assert facts(WAYS[way](error)) == facts(error)
    assert WAYS[way](error).errno == 13
    assert WAYS[way](error).filename == "/run/p2p.sock"


class Unpicklable(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def test_a_cause_that_pickle_cannot_carry_is_told_by_its_text() -> None:
    error = DialError(PEER, [(ADDR, Unpicklable(1, 2)), (ADDR, StreamReset(5))])
    error.__cause__ = Unpicklable(3, 4)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert [str(cause) for _, cause in again.causes] == ["Unpicklable: 1 and 2", str(StreamReset(5))]
    assert str(again.__cause__) == "Unpicklable: 3 and 4"
    assert copy.copy(error).causes[0][1] is error.causes[0][1]


def test_a_subclass_of_an_application_comes_back_too() -> None:
    again = pickle.loads(pickle.dumps(OfAnApplication("eu", 3)))
    assert (type(again), str(again), again.region) == (OfAnApplication, "3 in eu", "eu")


class OfAnApplication(StreamReset):
    def __init__(self, region: str, count: int) -> None:
        P2PError.__init__(self, f"{count} in {region}")
        self.region = region


def raise_one(index: int) -> None:
    raise make(all_classes()[index])


def test_a_process_pool_survives_every_error() -> None:
    classes = all_classes()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        raised = [pool.submit(raise_one, index).exception() for index in range(len(classes))]
    assert [type(each) for each in raised] == classes


def test_a_limit_says_who_how_much_and_which_option() -> None:  # RM-T15
    error = LimitExceeded(
        "max_conns_per_subnet",
        64,
        64,
        who="203.0.113.7",
        what="connections from",
        setting="Limits.max_conns_per_subnet",
    )
    assert str(error) == "64 of 64 connections from 203.0.113.7 (Limits.max_conns_per_subnet)"
    assert str(LimitExceeded("MAX_X_BYTES", 9, 8)) == "MAX_X_BYTES: 9 is over the limit of 8"


@pytest.mark.parametrize("code", [0x1001, 0x1002])
def test_a_go_away_for_a_limit_of_the_peer_is_its_refusal(code: int) -> None:  # RM-T16
    error = go_away_by_peer(code)
    assert isinstance(error, RefusedByPeer)
    assert isinstance(error, GoAway)
    assert not isinstance(error, LimitExceeded)
    assert (error.code, error.remote) == (code, True)
    assert "by the peer" in str(error)
    assert not isinstance(go_away_by_peer(0x1006), RefusedByPeer)


@pytest.mark.parametrize("code", [0x1002, 0x1003])
def test_a_reset_for_a_limit_of_the_peer_is_its_refusal(code: int) -> None:
    error = reset_by_peer(code)
    assert isinstance(error, RefusedByPeer)
    assert isinstance(error, StreamReset)
    assert (error.code, error.remote) == (code, True)
    assert not isinstance(reset_by_peer(0x1001), RefusedByPeer)
