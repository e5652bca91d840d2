"""The options for security, multiplexing and private networks.

Comes in: text from the command line. Goes out: a NodeOptions. `listen` and every command that dials make
their Host from it. The error for an unknown name lists the known names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from p2pcore import Host, PrivateKey, WebsocketOptions
from p2pcore.cli.gathered import gathered
from p2pcore.cli.keyfile import check_certificates, load_private_key, load_psk

if TYPE_CHECKING:
    from click import Context, Parameter

    NamesParam = click.ParamType[tuple[str, ...]]
else:  # generic in the newest click only
    NamesParam = click.ParamType

SECURITY = ("noise", "tls", "plaintext")
MUXERS = ("yamux", "mplex")


class NamesType(NamesParam):
    """A list of known names, separated by commas, each at most once."""

    name = "names"

    def __init__(self, what: str, choices: tuple[str, ...]) -> None:
        self._what = what
        self._choices = choices

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(","))
        for name in names:
            if name not in self._choices:
                known = ", ".join(self._choices)
                self.fail(f"no {self._what} is named {name!r}; possible are {known}", param, ctx)
        if len(set(names)) != len(names):
            self.fail(f"{value!r} names a {self._what} twice", param, ctx)
        return names


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """The values of the options below."""

    key_file: str | None
    security: tuple[str, ...]
    muxers: tuple[str, ...]
    psk_file: str | None
    ca_file: str | None
    verify: bool

    def host(self, **more: Any) -> Host:
        """A host with these options and the arguments `more`. Raises CommandFailed, OSError: a bad file."""
        return Host(self.private_key(), **{**self.settings(), **more})

    def private_key(self) -> PrivateKey | None:
        """The key of --key, or None. Raises CommandFailed, OSError."""
        return None if self.key_file is None else load_private_key(self.key_file)

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of Host without the key. Raises CommandFailed, OSError: a file cannot be used."""
        psk = None if self.psk_file is None else load_psk(self.psk_file)
        if self.ca_file is not None:
            check_certificates(self.ca_file)
        return {
            "security": self.security,
            "muxers": self.muxers,
            "psk": psk,
            "websocket": WebsocketOptions(ca_file=self.ca_file, verify=self.verify),
        }


_OPTIONS = (
    click.option(
        "--key",
        "key_file",
        metavar="FILE",
        help="File with the private key, as `p2pcore id new --out FILE` writes it. Default: a new key.",
    ),
    click.option(
        "--security",
        type=NamesType("security protocol", SECURITY),
        metavar="NAMES",
        default="noise",
        show_default=True,
        help=f"Security protocols in order of preference; possible are {', '.join(SECURITY)}.",
    ),
    click.option(
        "--muxers",
        type=NamesType("multiplexer", MUXERS),
        metavar="NAMES",
        default="yamux",
        show_default=True,
        help=f"Multiplexers in order of preference; possible are {', '.join(MUXERS)}.",
    ),
    click.option(
        "--psk",
        "psk_file",
        metavar="FILE",
        help="File with the key of a private network, as `p2pcore psk new --out FILE` writes it. Only peers "
        "with this key can connect.",
    ),
    click.option(
        "--tls-ca",
        "ca_file",
        metavar="FILE",
        help="File with the certificate authorities (PEM) to trust when dialling /tls/ws. Default: those of "
        "the system.",
    ),
    click.option(
        "--no-tls-verify",
        "verify",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Dial /tls/ws without a check of the certificate. The peer must still prove its id.",
    ),
)

node_options = gathered(NodeOptions, "node", _OPTIONS)
"""Gives a command the values of these options, as `node`."""
