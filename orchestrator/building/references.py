"""References to what the user wrote: `file.py:factory`, `package.module:factory`."""

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator.errors import InputError, unknown

_beside: dict[Path, set[Path]] = {}


def beside(reference: str | None) -> set[Path]:
    """Return the files that a `file.py:function` has imported from its own folder so far."""
    source = (reference or "").rpartition(":")[0]
    return set(_beside.get(Path(source).resolve().parent, ())) if source.endswith(".py") else set()


def load_function(reference: str, what: str) -> Callable[..., Any]:
    """Return the function that a reference names, after its module has been imported.

    Args:
        reference: "file.py:function" or "package.module:function".
        what: The option that it was given to, for the error.

    Raises:
        InputError: no such file, module or function, or running the module raised.
    """
    source, _, name = reference.rpartition(":")
    if not source or not name:
        raise InputError(f"{what} '{reference}' must be file.py:function or package.module:function")
    if source.endswith(".py"):
        path = Path(source)
        if not path.is_file():
            raise InputError(f"{what}: there is no file '{source}'")
        module = _run_file(path.resolve(), what)
    else:
        with _plainly(f"{what}: importing '{source}'"):
            module = importlib.import_module(source)
    function = getattr(module, name, None)
    if function is None:
        public = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise InputError(f"{what}: '{source}' has no such name: {unknown('function', name, public)}")
    if not callable(function):
        raise InputError(f"{what}: '{name}' in '{source}' is no function but a {type(function).__name__}")
    checked: Callable[..., Any] = function
    return checked


def call_factory(reference: str, what: str) -> Any:
    """Call a factory and return its result; its file's folder is importable meanwhile.

    Raises:
        InputError: whatever the factory raised, SystemExit too, as one line.
    """
    factory = load_function(reference, what)
    source = reference.rpartition(":")[0]
    folder = Path(source).resolve().parent if source.endswith(".py") else None
    with _importable(folder), _plainly(f"{what}: '{reference}'"):
        return factory()


def absolute(reference: str) -> str:
    """Return the reference with an absolute path, so that it is valid in any folder."""
    source, colon, name = reference.rpartition(":")
    if colon and source.endswith(".py"):
        return f"{Path(source).resolve()}:{name}"
    if reference.endswith((".onnx", ".npz")):
        return str(Path(reference).resolve())
    return reference


def _run_file(path: Path, what: str) -> ModuleType:
    # A name of its own for each path: two files called model.py do not replace each other.
    name = f"_orchestrator_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{what}: '{path}' is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importable(path.parent), _plainly(f"{what}: running '{path}'"):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Let modules beside the user's file be imported; afterwards forget them, for another file may mean others by those names."""
    if folder is None:
        yield
        return
    before = dict(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name not in before and file and folder in Path(file).parents and "site-packages" not in file:
                _beside.setdefault(folder, set()).add(Path(file))
                del sys.modules[name]


@contextlib.contextmanager
def _plainly(what: str) -> Iterator[None]:
    """Whatever the user's code raises becomes one line."""
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a factory may raise anything, SystemExit too
        text = str(error).strip().splitlines()
        raise InputError(f"{what} raised {type(error).__name__}: {text[0] if text else '(no message)'}") from error
