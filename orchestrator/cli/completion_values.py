"""What the shell completes: names of targets, methods, plugins and the like, and run directories.

Options and arguments say by their names what they take, so a command needs nothing here to be completed. No framework is loaded:
a person is waiting at the key.
"""

import tomllib
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS = ("bash", "zsh", "fish")
RUNS = "runs"
OF_A_RUN = ("results.json", "work/run.json")
MOST = 200  # entries of a folder that are looked at
# Bash takes "qemu:cortex-a72" for several words otherwise, and completes the last one alone.
BASH_WORDS = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:/}"

Names = Callable[[], Iterable[str]]


def script(shell: str) -> str:
    """The text that a shell runs to complete `orchestrate`."""
    from orchestrator.cli.program import COMPLETION, program

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"unknown shell '{shell}'")
    text = kind(program, {}, "orchestrate", COMPLETION).source()
    return f"{BASH_WORDS}\n{text}" if shell == "bash" else text


def prepare(command: click.Command) -> None:
    """Let the options and arguments of a command, and of those below it, be completed by what their names say."""
    for parameter in command.params:
        for word in (*parameter.opts, f"{command.name} {parameter.name}"):
            if word in TAKES:
                parameter.type = _Completed(*TAKES[word])
    if isinstance(command, click.Group):
        for child in command.commands.values():
            prepare(child)


class _Completed(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """A text that is completed by names; with files, what the shell finds on the disk stands beside them."""

    name = "text"

    def __init__(self, names: Names, files: str = "") -> None:
        self._names, self._files = names, files

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = sorted(name for name in set(self._names()) if name.startswith(incomplete))
        if self._files and not found:
            return [CompletionItem(incomplete, type=self._files)]
        return [CompletionItem(name) for name in found]


def _registry() -> Any:
    from orchestrator.plugin.registry import Registry

    return Registry.discover()


def _targets() -> Iterable[str]:
    """Names and aliases, read off the files: the schema is not asked."""
    yield "host"
    for path in _registry().profile_files().values():
        try:
            said = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        yield from (str(name) for name in (said.get("name", path.stem), *said.get("aliases", ())))
    yield from _files("*.toml")


def _methods() -> Iterable[str]:
    return _registry().methods()  # type: ignore[no-any-return]


def _runtimes() -> Iterable[str]:
    return _registry().runtimes()  # type: ignore[no-any-return]


def _metrics() -> Iterable[str]:
    return _registry().metrics()  # type: ignore[no-any-return]


def _searches() -> Iterable[str]:
    return [*_registry().search_files(), *_files("*.toml")]


def _plugins() -> Iterable[str]:
    return (entry.name for entry in entry_points(group="orchestrator"))


def _packages() -> Iterable[str]:
    return (entry.dist.name for entry in entry_points(group="orchestrator") if entry.dist)


def _devices() -> Iterable[str]:
    return [reference for device in _registry().devices().values() for reference in device.references()]


def _settable() -> Iterable[str]:
    return [reference for device in _registry().devices().values() for reference in device.setup_references()]


def _formats() -> Iterable[str]:
    return [name for name, form in _registry().reports().items() if form.run is not None]


def _runs() -> Iterable[str]:
    """Run directories here and in `runs/`, one and two folders deep."""
    for folder in (Path(), Path(RUNS)):
        for pattern in ("*", "*/*"):
            for path in islice(folder.glob(pattern), MOST):
                if any((path / name).is_file() for name in OF_A_RUN):
                    yield str(path)


def _files(pattern: str) -> Iterable[str]:
    return (str(path) for path in islice(Path().glob(pattern), MOST))


TAKES: dict[str, tuple[Any, ...]] = {
    "--target": (_targets, "file"),
    "--method": (_methods,),
    "--without": (_methods,),
    "--metric": (_metrics, "file"),
    "--search": (_searches, "file"),
    "--runtime": (_runtimes,),
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
    "setup reference": (_settable,),
    "remove reference": (_settable,),
    "check reference": (_devices,),
    "check package": (_packages, "dir"),
    "resume run": (_runs, "dir"),
    "report run": (_runs, "dir"),
    "report name": (_formats,),
    "dashboard run": (_runs, "dir"),
    "compare-runs a": (_runs, "dir"),
    "compare-runs b": (_runs, "dir"),
}
"""What is completed: an option by its name, an argument by that of its command and its own."""
