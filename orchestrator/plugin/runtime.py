"""The contract of a runtime: what executes an exported model."""

import inspect
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar


class Runtime(ABC):
    """What executes an exported model.

    `load` runs in a fresh process on the device, where this package may not be installed: its *source text* travels.
    So it imports what it needs inside its body and uses nothing of its module.

    Class attributes:
        name: As it stands in profiles and results ("onnxruntime").
        suffix: Of the file that it runs (".onnx").
        imports: The modules that `load` imports; they are loaded before the model's memory is measured.
    """

    name: ClassVar[str]
    suffix: ClassVar[str] = ".onnx"
    imports: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def version(self) -> str:
        """Return the installed version.

        Raises:
            Refused: it is not installed, with the command that installs it.
        """

    in_calling_thread: ClassVar[bool] = False
    """Whether with one thread all work is done by the thread that calls `run`. Only then does that thread's CPU time tell what a
    model costs where other work takes the core away; where it is not said, wall time alone is used."""

    def convert(self, model: Path, folder: Path) -> Path:
        """Convert an ONNX model to the runtime's own file; by default the ONNX file itself."""
        return model

    @staticmethod
    @abstractmethod
    def load(path: str, threads: int, options: Mapping[str, Any]) -> Callable[[dict[str, Any]], list[Any]]:
        """Load the file and return `run(inputs) -> outputs`: arrays by input name in, a list of arrays out."""

    def usage(self, file: str, threads: int) -> str:
        """How a person runs a file of this runtime, as Markdown for the model's card: "" is the card's own text for onnxruntime.

        Args:
            threads: Threads of one inference.
            file: The file's name; it stands in the working directory.
        """
        return ""

    def source(self) -> str:
        """Return the source text of `load`, ready to be executed on the device."""
        text = textwrap.dedent(inspect.getsource(type(self).load))
        # Annotations name what only this module imports: they must stay unevaluated on the device.
        return "from __future__ import annotations\n" + text.removeprefix("@staticmethod\n")
