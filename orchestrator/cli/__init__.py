"""The command line: parse, call the API, print. Commands are loaded when they are used."""

from orchestrator.cli.program import main

__all__ = ["main"]
