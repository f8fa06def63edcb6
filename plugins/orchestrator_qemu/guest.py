"""What the guest's Python runs first: from here on nothing depends on the disk that the guest lies on.

Which object lies where in memory decides what the caches see, and it follows from all that was allocated before. Python lists
folders to find modules, in the order of the disk, and asks for the owners of files; both leave their traces. So modules are found
by a list that the emulator wrote (`/work/start.txt`), and what Python's allocator was left with so far is used up.

Only modules that are part of the interpreter are imported here (`__future__` is none, so annotations are quoted). What counts is
imported afterwards: `server.py`.
"""

import gc
import marshal
import posix
import sys
from _frozen_importlib import BuiltinImporter, FrozenImporter, ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

CHUNK_BYTES = 1 << 16
SIZE_CLASSES = range(48, 513, 16)  # of Python's allocator (pymalloc); those of 16 and 32 bytes are filled by other objects
BYTES_OBJECT = 33  # what an empty one takes
FILLERS = 100_000
ROOM_BYTES = 4 << 20  # more than what an interpreter that has just started has free
SPARE = 16


def read(path: str) -> bytes:
    """Read a file without asking for its size, which would depend on the disk."""
    descriptor = posix.open(path, posix.O_RDONLY)
    pieces = []
    while piece := posix.read(descriptor, CHUNK_BYTES):
        pieces.append(piece)
    posix.close(descriptor)
    return b"".join(pieces)


class ListedModules:
    """A finder and loader of modules by a list: {name: (file, compiled file, folder of a package)}, each may be ""."""

    def __init__(self, listed: dict[str, tuple[str, str, str]]) -> None:
        self._listed = listed

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "ModuleSpec | None":
        """Return a module's place, or None if it is not in the list."""
        if name not in self._listed:
            return None
        file, _, folder = self._listed[name]
        loader = ExtensionFileLoader(name, file) if file.endswith(".so") else self if file else None
        spec = ModuleSpec(name, loader, origin=file or None, is_package=bool(folder))  # type: ignore[arg-type]
        spec.has_location = bool(file)
        if folder:
            spec.submodule_search_locations = [folder]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None: Python creates an ordinary module."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run the module's code."""
        file, compiled, _ = self._listed[module.__name__]
        content = read(compiled or file)
        # What follows a compiled file's header is what Python wrote.
        code = marshal.loads(content[16:]) if compiled else compile(content, file, "exec", dont_inherit=True)  # noqa: S302
        exec(code, module.__dict__)  # noqa: S102 this is what importing is


def use_up() -> "list[Any]":
    """Fill what is free of the memory that Python's allocator holds, so that what comes next lies in fresh memory, in order.

    Returns:
        What fills it: to be kept.
    """
    gc.collect()  # empties the lists of freed tuples, floats and others
    numbers = list(range(FILLERS))
    fillers: list[Any] = [None] * FILLERS
    kept: list[Any] = [numbers, fillers, bytes(ROOM_BYTES)]
    fresh = id(kept[2]) + ROOM_BYTES
    for size in reversed(SIZE_CLASSES):
        kept.append(fillers := [None] * FILLERS)
        for k in numbers:
            fillers[k] = bytes(size - BYTES_OBJECT)
            if id(fillers[k]) >= fresh:
                break
    for make in (lambda: complex(1.0, 1.0), object):
        kept.append(fillers := [None] * FILLERS)
        for k in numbers:
            fillers[k] = make()
            if id(fillers[k]) >= fresh:
                break
    # The loops' own passing numbers lie in one order or the other; these take their places.
    kept.append([[bytes(size - BYTES_OBJECT) for _ in range(SPARE)] for size in SIZE_CLASSES])
    kept.append([complex(1.0, 1.0) for _ in range(SPARE)])
    kept.append([object() for _ in range(SPARE)])
    return kept


def main() -> None:
    """Continue with `server.py`."""
    start = eval(read("/work/start.txt"))  # noqa: S307 the emulator's own; nothing is there yet that reads JSON
    sys.path[:] = start["paths"]
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, ListedModules(start["modules"])]
    sys.path_importer_cache.clear()
    sys.kept = use_up()  # type: ignore[attr-defined]
    import server  # type: ignore[import-not-found]

    server.main(start)


main()
