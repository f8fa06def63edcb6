"""Problems that the kit reports: one line and its fix, without a traceback of the kit's own."""

import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

import pytest


def must(holds: object, problem: str, fix: str) -> None:
    """Fail the test unless a condition holds."""
    if not holds:
        wrong(problem, fix)


def wrong(problem: str, fix: str) -> NoReturn:
    """Fail the test."""
    pytest.fail(f"{problem}\n  fix: {fix}", pytrace=False)


def python(code: str, *arguments: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    """Run code in a fresh interpreter that sees what is installed here."""
    command: Sequence[str] = (sys.executable, "-c", code, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def last_line(text: str) -> str:
    """Return the last line of a traceback, which contains the error."""
    return (text.strip().splitlines() or ["it said nothing"])[-1]
