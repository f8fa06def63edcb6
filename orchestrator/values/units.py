"""Parsing of quantities: `20ms`, `500kB`, `30m`, `1%`."""

import re

from orchestrator.errors import InputError

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {
    "b": 1,
    "kb": 1_000,
    "mb": 1_000_000,
    "gb": 1_000_000_000,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}


def parse_seconds(text: str, what: str) -> float:
    """Parse `30m`, `90s`, `20ms` as seconds; a number without a unit is an error.

    Raises:
        InputError: It is not a positive number with a unit of time.
    """
    return _parse(text, what, SECONDS, "30s, 20ms, 5m or 2h")


def parse_bytes(text: str, what: str) -> int:
    """Parse `500kB`, `64MB`, `1GiB` as bytes.

    Raises:
        InputError: It is not a positive number with a unit of size.
    """
    return max(1, int(_parse(text, what, BYTES, "500kB, 64MB or 1GiB")))


def parse_share(text: str, what: str) -> float:
    """Parse `1%` or `0.01` as 0.01.

    Raises:
        InputError: It is not a number.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%?)\s*", text)
    if not match:
        raise InputError(f"{what} '{text}' cannot be read; write it like 1% or 0.01")
    return float(match[1]) / (100 if match[2] else 1)


def _parse(text: str, what: str, units: dict[str, float] | dict[str, int], example: str) -> float:
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*", text)
    if not match or match[2].lower() not in units or float(match[1]) <= 0:
        raise InputError(f"{what} '{text}' cannot be read; write it like {example}")
    return float(match[1]) * units[match[2].lower()]
