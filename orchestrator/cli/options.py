"""Options that several commands share, and how their texts become values."""

from collections.abc import Callable
from typing import Any

import click

from orchestrator.errors import InputError
from orchestrator.values.target import Limits
from orchestrator.values.units import parse_bytes, parse_seconds, parse_share


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
