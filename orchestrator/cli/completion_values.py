"""Values that the shell completes: names of targets, methods, plugins and the like, and run directories.

`TAKES` maps the names of options and arguments to their values, so that a command needs nothing here to be completed. No
framework is loaded, because completion must be quick.
"""

import tomllib
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from orchestrator.values.device import HOST

RUNS = "runs"
OF_A_RUN = ("results.json", "work/run.json")
MOST = 200  # examined entries of a folder

Names = Callable[[], Iterable[str]]


def prepare(command: click.Command) -> None:
    """Set the completed values of a command's options and arguments, and of those of its subcommands, by their names."""
    for parameter in command.params:
        for word in (*parameter.opts, f"{command.name} {parameter.name}"):
            if word in TAKES:
                parameter.type = _Completed(*TAKES[word])
    if isinstance(command, click.Group):
        for child in command.commands.values():
            prepare(child)


class _Completed(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """A text that is completed by names; if none fits, by what the shell finds on the disk ("file" or "dir")."""

    name = "text"

    def __init__(self, names: Names, files: str = "") -> None:
        self._names, self._files = names, files

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = sorted(name for name in set(self._names()) if name.startswith(incomplete))
        if self._files and not names:
            return [CompletionItem(incomplete, type=self._files)]
        return [CompletionItem(name) for name in names]


def _registered(kind: str) -> Any:
    from orchestrator.plugin.registry import Registry

    return getattr(Registry.discover(), kind)()


def _targets() -> Iterable[str]:
    """Yield names and aliases, read off the files without their schema."""
    yield HOST
    for path in _registered("profile_files").values():
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        yield from (str(name) for name in (table.get("name", path.stem), *table.get("aliases", ())))
    yield from _files("*.toml")


def _searches() -> Iterable[str]:
    return [*_registered("search_files"), *_files("*.toml")]


def _plugins() -> Iterable[str]:
    return (entry.name for entry in entry_points(group="orchestrator"))


def _packages() -> Iterable[str]:
    return (entry.dist.name for entry in entry_points(group="orchestrator") if entry.dist)


def _devices() -> Iterable[str]:
    return [reference for device in _registered("devices").values() for reference in device.references()]


def _devices_to_set_up() -> Iterable[str]:
    return [reference for device in _registered("devices").values() for reference in device.setup_references()]


def _formats() -> Iterable[str]:
    return [name for name, form in _registered("reports").items() if form.run is not None]


def _runs() -> Iterable[str]:
    """Yield run directories here and in `runs/`, one and two folders deep."""
    for folder in (Path(), Path(RUNS)):
        for pattern in ("*", "*/*"):
            for path in islice(folder.glob(pattern), MOST):
                if any((path / name).is_file() for name in OF_A_RUN):
                    yield str(path)


def _files(pattern: str) -> Iterable[str]:
    return (str(path) for path in islice(Path().glob(pattern), MOST))


TAKES: dict[str, tuple[Any, ...]] = {
    "--target": (_targets, "file"),
    "--method": (partial(_registered, "methods"),),
    "--without": (partial(_registered, "methods"),),
    "--metric": (partial(_registered, "metrics"), "file"),
    "--search": (_searches, "file"),
    "--runtime": (partial(_registered, "runtimes"),),
    "--device": (_devices,),
    "--without-plugin": (_plugins,),
    "--warm-start": (_runs, "dir"),
    "--model": (list, "file"),
    "--data": (list, "file"),
    "--loss": (list, "file"),
    "--student": (list, "file"),
    "--baseline": (list, "file"),
    "--candidate": (list, "file"),
    "show name": (_targets, "file"),
    "setup reference": (_devices_to_set_up,),
    "remove reference": (_devices_to_set_up,),
    "check reference": (_devices,),
    "check package": (_packages, "dir"),
    "resume run": (_runs, "dir"),
    "report run": (_runs, "dir"),
    "report name": (_formats,),
    "dashboard run": (_runs, "dir"),
    "compare-runs a": (_runs, "dir"),
    "compare-runs b": (_runs, "dir"),
}
"""Values and files by an option's name, or by an argument's name behind that of its command."""
