"""Output of commands: the JSON document of `--json`, and files that options name."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from orchestrator.errors import InputError
from orchestrator.values.files import write_atomic

_kept: list[int] = []
"""The file descriptor of the real standard output, while everything else goes to standard error."""


@contextmanager
def json_alone(arguments: Sequence[str]) -> Iterator[None]:
    """Redirect standard output to standard error if `--json` is given, for child processes too."""
    if "--json" not in arguments:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    _kept.append(kept)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(_kept.pop())


def document(text: str) -> None:
    """Print the JSON document on the real standard output."""
    if not _kept:
        click.echo(text)
        return
    data = (text + "\n").encode()
    while data:
        data = data[os.write(_kept[-1], data) :]


def write_output(path: Path, text: str, option: str) -> None:
    """Write a file that an option names.

    Raises:
        InputError: It cannot be written.
    """
    try:
        write_atomic(path, text)
    except OSError as error:
        raise InputError(f"{option} '{path}' cannot be written: {error.strerror}") from None
