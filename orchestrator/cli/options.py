"""Options that several commands share, and how their texts become values."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.errors import InputError
from orchestrator.values.target import Limits
from orchestrator.values.units import parse_bytes, parse_seconds, parse_share

if TYPE_CHECKING:
    from orchestrator.api.measure import MeasureOptions


def limits(
    max_latency: str | None, max_size: str | None, max_memory: str | None, max_drop: str | None, min_quality: str | None
) -> Limits:
    """The limits that the options name.

    Raises:
        InputError: one cannot be read.
    """
    return Limits(
        max_latency_ms=None if max_latency is None else parse_seconds(max_latency, "--max-latency") * 1e3,
        max_size_bytes=None if max_size is None else parse_bytes(max_size, "--max-size"),
        max_memory_bytes=None if max_memory is None else parse_bytes(max_memory, "--max-memory"),
        max_drop=None if max_drop is None else parse_share(max_drop, "--max-drop"),
        min_quality=None if min_quality is None else parse_share(min_quality, "--min-quality"),
    )


def input_shapes(texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """`NAME=1,3,32,32` texts as shapes.

    Raises:
        InputError: one cannot be read.
    """
    shapes = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = ()
        if not equals or not name or not shape or min(shape) < 1:
            raise InputError(f"--input-shape '{text}' cannot be read; write it like NAME=1,3,32,32")
        shapes[name] = shape
    return shapes


def budget(function: Callable[..., Any]) -> Callable[..., Any]:
    """--trials and --timeout."""
    function = click.option("--timeout", metavar="TIME", help="Budget of time, e.g. 30m; the first that is reached ends it.")(
        function
    )
    return click.option("--trials", type=int, metavar="N", help="Budget of candidates.")(function)


def seconds(text: str | None) -> float | None:
    """--timeout as seconds."""
    return None if text is None else parse_seconds(text, "--timeout")


_MEASURING = (
    click.option("--target", default="host", show_default=True, metavar="NAME|FILE.toml", help="Hardware profile."),
    click.option(
        "--device", metavar="DEVICE", help="host, ssh://user@board[:port] or qemu:CPU [default: the profile's, else this host]."
    ),
    click.option("--runtime", metavar="NAME", help="What runs the model [default: the first that the profile lists]."),
    click.option("--threads", type=int, metavar="N", help="Threads of one inference [default: the profile's]."),
    click.option("--data", metavar="REF", help="file.py:factory or arrays.npz to take inputs from [default: random]."),
    click.option(
        "--input-shape", "input_shape", multiple=True, metavar="NAME=1,3,32,32", help="Sizes of dynamic axes (repeatable)."
    ),
    click.option(
        "--precision-goal",
        default="2%",
        show_default=True,
        metavar="SHARE",
        help="Go on until the 95 % interval's half-width is below this share of the figure ...",
    ),
    click.option("--max-seconds", type=float, default=10.0, show_default=True, metavar="S", help="... or until this is up."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Order of blocks, random inputs."),
    click.option("--samples", type=click.Path(path_type=Path), metavar="FILE.csv", help="Keep the raw samples in a file."),
    click.option(
        "--without-plugin", "without_plugins", multiple=True, metavar="NAME", help="Do not load this plugin (repeatable)."
    ),
)


def measuring(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `measure` and `compare`."""
    for option in reversed(_MEASURING):
        function = option(function)
    return function


def measure_options(said: dict[str, Any]) -> "MeasureOptions":
    """What those options say.

    Raises:
        InputError: one cannot be read.
    """
    from orchestrator.api.measure import MeasureOptions

    shapes = input_shapes(said.pop("input_shape"))
    goal = parse_share(said.pop("precision_goal"), "--precision-goal")
    if "margin" in said:
        said["margin"] = parse_share(said["margin"], "--margin")
    return MeasureOptions(**said, input_shapes=shapes, precision_goal=goal)
