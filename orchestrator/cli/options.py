"""Options that several commands share, and the types that parse their texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from orchestrator.errors import InputError
from orchestrator.values.units import parse_bytes, parse_seconds, parse_share


class Quantity(click.ParamType[Any, Any]):
    """A type of option that is parsed by a function of `orchestrator.values.units`."""

    def __init__(self, name: str, parse: Callable[[str, str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a text; raise InputError, which names the option, if it cannot be read."""
        return self._parse(value, param.opts[0] if param else "") if isinstance(value, str) else value


def _shape(text: str, option: str) -> tuple[str, tuple[int, ...]]:
    name, equals, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not equals or not name or not shape or min(shape) < 1:
        raise InputError(f"{option} '{text}' cannot be read; write it like NAME=1,3,32,32")
    return name, shape


SECONDS = Quantity("TIME", parse_seconds)
WAIT = Quantity("TIME", lambda text, option: 0.0 if text.strip() in ("0", "0s") else parse_seconds(text, option))
MILLISECONDS = Quantity("TIME", lambda text, option: parse_seconds(text, option) * 1e3)
BYTES = Quantity("SIZE", parse_bytes)
SHARE = Quantity("SHARE", parse_share)

input_shapes = click.option(
    "--input-shape",
    "input_shapes",
    multiple=True,
    type=Quantity("SHAPE", _shape),
    callback=lambda context, parameter, value: dict(value),
    metavar="NAME=1,3,32,32",
    help="Sizes of dynamic axes (repeatable).",
)
without_plugins = click.option(
    "--without-plugin", "without_plugins", multiple=True, metavar="NAME", help="Do not load this plugin (repeatable)."
)


def combined(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Return one decorator that declares several options, in their order."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return declare


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given on the command line."""
    return {name: value for name, value in values.items() if value is not None}


budget = combined(
    click.option("--trials", type=int, metavar="N", help="Budget of candidates."),
    click.option(
        "--timeout",
        "timeout_s",
        type=SECONDS,
        metavar="TIME",
        help="Budget of time, e.g. 30m; the first that is reached ends it.",
    ),
)
measuring = combined(
    click.option("--target", default="host", show_default=True, metavar="NAME|FILE.toml", help="Hardware profile."),
    click.option(
        "--device", metavar="DEVICE", help="host, ssh://user@board[:port] or qemu:CPU [default: the profile's, else this host]."
    ),
    click.option("--runtime", metavar="NAME", help="Runtime that executes the model [default: the profile's first]."),
    click.option("--threads", type=int, metavar="N", help="Threads of one inference [default: the profile's]."),
    click.option("--data", metavar="REF", help="file.py:factory or arrays.npz to read inputs from [default: random]."),
    input_shapes,
    click.option(
        "--precision-goal",
        default="2%",
        show_default=True,
        type=SHARE,
        metavar="SHARE",
        help="Measure until the half-width of the 95 % interval is below this share of the value ...",
    ),
    click.option("--max-seconds", type=float, default=10.0, show_default=True, metavar="S", help="... or for this long."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Order of blocks, random inputs."),
    click.option("--samples", type=click.Path(path_type=Path), metavar="FILE.csv", help="Write the raw samples to a file."),
    without_plugins,
)
"""The options of `measure` and `compare`."""
