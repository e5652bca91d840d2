"""The types of arguments and options (multiaddrs, targets, sizes), and options that several commands share.

Comes in: text from the command line. Goes out: values, or a usage error that says what was expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from p2pcore import AddressError, IdentityError, LimitExceeded, Multiaddr
from p2pcore.cli.node_options import node_options
from p2pcore.limits import MAX_PROTOCOL_ID_BYTES
from p2pcore.options import is_protocol_id

if TYPE_CHECKING:
    from click import Context, Parameter

    AddressParam = click.ParamType[Multiaddr]
    IntParam = click.ParamType[int]
    SecondsParam = click.ParamType[float]
    TextParam = click.ParamType[str]
else:  # generic in the newest click only
    AddressParam = IntParam = SecondsParam = TextParam = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[kmgt]?i?b?)", re.ASCII | re.IGNORECASE)
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_FACTORS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_NAMES = ("dns", "dns4", "dns6", "dnsaddr")


class AddressType(AddressParam):
    """A multiaddr to listen on. The host must be numeric; the host of a relay may be a name."""

    name = "multiaddr"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> Multiaddr:
        if isinstance(value, Multiaddr):
            return value
        if not value.startswith("/"):
            self.fail(f"{value!r} is not a multiaddr such as /ip4/ADDRESS/tcp/PORT", param, ctx)
        try:
            addr = Multiaddr(value)
        except (AddressError, IdentityError, LimitExceeded) as error:
            self.fail(str(error), param, ctx)
        self.check(addr, param, ctx)
        return addr

    def check(self, addr: Multiaddr, param: Parameter | None, ctx: Context | None) -> None:
        """Fails for an address that nobody can listen on."""
        names = [protocol.name for protocol in addr.protocols()]
        if names[-1] == "p2p-circuit":
            if "p2p" not in names:
                self.fail(f"{addr}: RELAY/p2p-circuit is expected; RELAY ends with /p2p/PEER_ID", param, ctx)
            return
        if names[0] in _NAMES:
            self.fail(f"{addr}: listening needs an /ip4 or /ip6 address, not a host name", param, ctx)
        if addr.peer_id is not None:
            text = str(addr.without_p2p())
            self.fail(f"listen on {text}; the peer id comes from --key", param, ctx)


class TargetType(AddressType):
    """A multiaddr to dial, numeric or with a host name."""

    def check(self, addr: Multiaddr, param: Parameter | None, ctx: Context | None) -> None:
        """Fails for an address that nobody can dial."""
        if addr.get("tcp") == "0":
            self.fail(f"{addr}: port 0 cannot be dialled", param, ctx)


class ProtocolType(TextParam):
    """A protocol id."""

    name = "protocol"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> str:
        text = str(value)
        if not is_protocol_id(text, MAX_PROTOCOL_ID_BYTES):
            self.fail(f"{text!r} is no protocol id such as /chat/1.0.0", param, ctx)
        return text


class CountType(IntParam):
    """A whole number, 0 or more."""

    name = "count"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> int:
        if not str(value).isdecimal() or not str(value).isascii() or len(str(value)) > 18:
            self.fail(f"{value!r} is not a whole number of 0 or more", param, ctx)
        return int(value)


class WorkersType(IntParam):
    """A number of processes."""

    name = "workers"
    maximum = 256

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> int:
        is_number = str(value).isdecimal() and str(value).isascii() and len(str(value)) < 10
        if not is_number or not 1 <= int(value) <= self.maximum:
            self.fail(f"{value!r} is not a number of workers from 1 to {self.maximum}", param, ctx)
        return int(value)


class SizeType(IntParam):
    """A number of bytes: 1000, 64KiB, 1.5GB; 0 to 1 TiB."""

    name = "size"
    maximum = 2**40

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            self.fail(f"{value!r} is no size: 1000, 64KiB or 1.5GB are expected", param, ctx)
        unit = found["unit"].lower()
        factors = _BINARY_FACTORS if "i" in unit else _FACTORS
        factor = factors.get(unit.rstrip("b").rstrip("i"))
        if factor is None:
            self.fail(f"{value!r} is no size: 1000, 64KiB or 1.5GB are expected", param, ctx)
        number = float(found["number"]) * factor
        if number > self.maximum:
            self.fail(f"{value} is more than 1 TiB", param, ctx)
        return math.floor(number)


class SecondsType(SecondsParam):
    """A time in seconds: 0 to an hour."""

    name = "seconds"
    maximum = 3600.0

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= self.maximum:
            self.fail(f"{value!r} is not a number of seconds from 0 to {self.maximum:g}", param, ctx)
        return seconds


def json_option(function: F) -> F:
    """Adds --json, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")(function)


def allow_limited_option(function: F) -> F:
    """Adds --allow-limited. Every command that opens streams of a program's own has it."""
    return click.option(
        "--allow-limited",
        is_flag=True,
        help="Use the connection even if a relay limits its bytes or its time.",
    )(function)


def target_options(function: F) -> F:
    """Adds TARGET, --any-peer, --json and the options of a node. Every command that dials has them."""
    function = json_option(node_options(function))
    function = click.option(
        "--any-peer", is_flag=True, help="Allow a TARGET without /p2p/PEER_ID, and trust any peer there."
    )(function)
    return click.argument("target", type=TargetType())(function)


def check_target(target: Multiaddr, any_peer: bool) -> None:
    """Raises a usage error: `target` names no peer, and --any-peer was not given."""
    if target.peer_id is None and not any_peer:
        raise click.UsageError(
            f"{target} has no /p2p/PEER_ID at its end, so an impostor could answer; "
            "add it, or give --any-peer to trust any peer there",
            click.get_current_context(),
        )
