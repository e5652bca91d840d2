"""Options from a file and from the environment, for the command that runs a node.

Comes in: a TOML file (--config), P2PCORE_... variables, arguments. Goes out: arguments as if all had been
typed, and where each value came from. An argument goes before a variable, a variable before the file, the
file before the default. A key that is no option is an error that names the nearest one.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from p2pcore.cli.failure import CommandFailed

if TYPE_CHECKING:
    from click import Context

PREFIX = "P2PCORE_"
CONFIG = "config"
ARGUMENT, DEFAULT = "argument", "default"
NOT_IN_FILES = frozenset({CONFIG, "check", "help", "json"})
"""Options that say what this run of a command does, and nothing about the node."""

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
_SOURCES = "p2pcore.sources"


@dataclass(frozen=True, slots=True)
class Given:
    """A value of one option: its texts, as they could be typed, and where they came from."""

    texts: tuple[str, ...]
    source: str


def key_of(option: click.Parameter) -> str:
    """The name of `option` in a file: its longest name without dashes."""
    return max(option.opts, key=len).lstrip("-")


def variable_of(option: click.Parameter) -> str:
    """The environment variable of `option`."""
    return PREFIX + key_of(option).replace("-", "_").upper()


def configurable(command: click.Command) -> dict[str, click.Option]:
    """The options of `command` that a file may set, by their key."""
    options = (param for param in command.params if isinstance(param, click.Option))
    return {key_of(option): option for option in options if key_of(option) not in NOT_IN_FILES}


def sources(ctx: Context) -> dict[str, str]:
    """Where the value of each option came from, by the name of the parameter."""
    found: dict[str, str] = ctx.meta.get(_SOURCES, {})
    return found


class ConfiguredCommand(click.Command):
    """A command whose options may also come from a file and from the environment."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        typed, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        options = configurable(self)
        path = typed.get(CONFIG) or os.environ.get(PREFIX + CONFIG.upper())
        given = _from_file(path, options) if path else {}
        given |= _from_environment(options, os.environ)
        found: dict[str, str] = {}
        more: list[str] = []
        for key, option in options.items():
            assert option.name is not None
            if option.name in typed:
                found[option.name] = ARGUMENT
            elif key in given:
                found[option.name] = given[key].source
                _check(ctx, option, given[key])
                more += _typed(option, given[key].texts)
            else:
                found[option.name] = DEFAULT
        ctx.meta[_SOURCES] = found
        return super().parse_args(ctx, [*more, *args])


def _check(ctx: Context, option: click.Option, given: Given) -> None:
    """Raises CommandFailed: the value is not possible. The message says where it stands."""
    if option.is_flag or option.count:
        return
    try:
        for text in given.texts:
            option.type.convert(text, option, ctx)
    except click.BadParameter as error:
        raise CommandFailed(f"{given.source}: {key_of(option)}: {error.message}") from error


def _typed(option: click.Option, texts: tuple[str, ...]) -> list[str]:
    """The arguments that give `option` this value."""
    name = f"--{key_of(option)}"
    if option.count:
        return [name] * int(texts[0])
    if option.is_flag:
        return [name] if texts[0] in _TRUE else []
    return [part for text in texts for part in (name, text)]


# -- the file ----------------------------------------------------------------------------------


def _from_file(path: str, options: Mapping[str, click.Option]) -> dict[str, Given]:
    """The values in the file. Raises CommandFailed, OSError."""
    import tomllib  # here, because few nodes have a file

    with open(path, "rb") as file:
        try:
            content = tomllib.load(file)
        except (ValueError, RecursionError) as error:  # a number may be too long, or a list too deep
            raise CommandFailed(f"{path} is not TOML: {error}") from error
    found = {}
    for name, value in content.items():
        key = name.replace("_", "-")
        if key not in options:
            raise CommandFailed(f"{path}: no option is named {name!r}{_nearest(key, options)}")
        _bounded(path, name, value)
        found[key] = Given(_texts(path, key, options[key], value), path)
    return found


def _nearest(key: str, options: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, options, 1, 0.4)
    return f"; the nearest one is {close[0]!r}" if close else ""


def _texts(path: str, key: str, option: click.Option, value: Any) -> tuple[str, ...]:
    """`value` as arguments. Raises CommandFailed: it has the wrong type."""
    if option.multiple:
        values = value if isinstance(value, list) else [value]
        if all(isinstance(each, str) for each in values):
            return tuple(values)
        raise CommandFailed(f"{path}: {key} must be a text or a list of texts, not {value!r}")
    if option.is_flag and not option.count:
        if isinstance(value, bool):
            return ("true" if value else "false",)
        raise CommandFailed(f"{path}: {key} must be true or false, not {value!r}")
    if option.count and not (type(value) is int and 0 <= value <= MAX_COUNTED):
        raise CommandFailed(f"{path}: {key} must be a whole number from 0 to {MAX_COUNTED}, not {value!r}")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise CommandFailed(f"{path}: {key} must be a text or a number, not {value!r}")
    return (str(value),)


def _bounded(path: str, name: str, value: Any) -> None:
    """Raises CommandFailed: a number in `value` has more digits than Python shows."""
    try:
        str(value)
    except ValueError as error:
        raise CommandFailed(f"{path}: the number of {name!r} has too many digits") from error


MAX_COUNTED = 9
"""The most that an option that counts (-v) can be; 3 is the most that has a meaning."""


# -- the environment ---------------------------------------------------------------------------


def _from_environment(
    options: Mapping[str, click.Option], environment: Mapping[str, str]
) -> dict[str, Given]:
    """The values in `environment`. An empty variable is one that is not set. Raises CommandFailed."""
    found = {}
    for key, option in options.items():
        name = variable_of(option)
        text = environment.get(name, "")
        if text:
            found[key] = Given(_of_variable(name, option, text), f"${name}")
    return found


def _of_variable(name: str, option: click.Option, text: str) -> tuple[str, ...]:
    if option.multiple:
        return tuple(text.split())
    if option.count:
        if not (text.isascii() and text.isdigit() and int(text) <= MAX_COUNTED):
            raise CommandFailed(f"${name} must be a whole number from 0 to {MAX_COUNTED}, not {text!r}")
    elif option.is_flag:
        text = text.lower()
        if text not in _TRUE | _FALSE:
            raise CommandFailed(f"${name} must be true or false, not {text!r}")
    return (text,)


def strangers(options: Iterable[click.Option], environment: Mapping[str, str]) -> list[str]:
    """A warning for each P2PCORE_... variable that is nearly the name of an option."""
    known = {variable_of(option) for option in options} | {PREFIX + CONFIG.upper()}
    found = []
    for name in sorted(environment):
        close = difflib.get_close_matches(name, known, 1, 0.85) if name.startswith(PREFIX) else []
        if close and name not in known:
            found.append(f"${name} is no option; the nearest one is ${close[0]}")
    return found
