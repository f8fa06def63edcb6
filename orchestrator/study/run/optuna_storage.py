"""Optuna storages by URL: a database, a gRPC proxy before one, a journal in a folder that machines share."""

import contextlib
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from orchestrator.errors import EnvironmentFailure, InputError
from orchestrator.values.distribution import install_command
from orchestrator.values.files import drop_half_line

CONNECT_S = 10
"""How long a storage may take to answer at all."""
ATTEMPTS = 6
"""To make a database's tables while other processes do."""
LOCKED_S = 60
"""How long SQLite waits for other processes."""
GRPC_PORT = 13000
DRIVERS = {"postgresql": ("psycopg", "postgresql"), "mysql": ("pymysql", "mysql")}
"""For a URL that names no driver: the one that the product's own extra brings, and that extra."""


class SharedJournal(JournalFileBackend):
    """Optuna's journal, which fixes itself: a machine that lost its power may have left half a line at the end.

    Optuna would write the next record onto that half line, and neither could be read any more.
    """

    def __init__(self, path: Path) -> None:
        # The lock is a link to the path, which is followed from the lock's own folder: a relative one would lead nowhere.
        self._path = path.resolve()
        lock = JournalFileSymlinkLock(str(self._path))
        super().__init__(str(self._path), lock)
        self._writing = lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records, after whole ones only."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._writing.acquire()
        try:
            drop_half_line(self._path)
            with self._path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            with contextlib.suppress(RuntimeError):  # held so long that another took it for a dead process's
                self._writing.release()


def open_storage(url: str) -> BaseStorage:
    """A storage that several processes may use at once.

    Args:
        url: A database of SQLAlchemy's (`postgresql://...`, `mysql://...`, `sqlite:///FILE`), `grpc://HOST:PORT` of Optuna's gRPC
            proxy, or `journal:FILE` in a folder that all machines see.

    Raises:
        InputError: it cannot be read, a driver is missing, or it refuses us.
        EnvironmentFailure: it does not answer.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scheme, colon, rest = url.partition(":")
    if not colon or not rest:
        raise InputError(
            f"--storage '{masked(url)}' is no URL; write it like postgresql://USER@HOST/NAME, sqlite:///FILE, "
            f"grpc://HOST:{GRPC_PORT} or journal:FILE"
        )
    if scheme == "journal":
        return _journal(url, Path(rest))
    return _grpc(url, rest) if scheme == "grpc" else _database(url)


def absolute(url: str) -> str:
    """The URL so that it means the same in another folder: files of a journal or of SQLite by their whole path."""
    if url.startswith("journal:"):
        return f"journal:{Path(url.removeprefix('journal:')).absolute()}"
    path = url.removeprefix("sqlite:///")
    if path == url or not path or path.startswith(("/", ":memory:", "?", "file:")):
        return url
    return f"sqlite:///{Path(path).absolute()}"


def masked(url: str) -> str:
    """The URL without its password, which may hold an `@` of its own or stand among the options."""
    without = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&](?:\w*password|passwd)=)[^&]*", r"\1***", without)


def _journal(url: str, path: Path) -> BaseStorage:
    if not path.parent.is_dir():
        raise InputError(f"--storage '{url}' cannot be opened: there is no folder '{path.parent}'")
    try:
        return JournalStorage(SharedJournal(path))
    except OSError as error:
        raise InputError(f"--storage '{url}' cannot be opened: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--storage '{url}' cannot be opened: '{path}' is no journal of Optuna's ({error})") from None


def _grpc(url: str, rest: str) -> BaseStorage:
    found = re.fullmatch(r"//(\[[^\]]+\]|[^:/\[\]]+)(?::(\d+))?/?", rest)
    if found is None:
        raise InputError(f"--storage '{url}' cannot be read; write it like grpc://HOST:{GRPC_PORT}")
    if find_spec("grpc") is None:
        raise InputError(f"--storage '{url}' needs the package grpcio: {install_command('grpc')}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.GrpcStorageProxy(host=found[1], port=int(found[2] or GRPC_PORT))
    try:
        storage.wait_server_ready(timeout=CONNECT_S)
    except ConnectionError:
        storage.close()
        raise EnvironmentFailure(
            f"--storage '{url}' does not answer within {CONNECT_S} s; is the proxy running there (see docs/workers.md)?"
        ) from None
    return storage


def _database(url: str) -> BaseStorage:
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    try:
        return _made(_with_driver(url), _engine_options(url))
    except ImportError as error:
        cause = error.__cause__ or error
        extra = next((extra for scheme, (_, extra) in DRIVERS.items() if url.startswith(scheme)), None)
        how = f": {install_command(extra)}" if extra else ""
        raise InputError(f"--storage '{masked(url)}' needs a driver that is not installed ({cause}){how}") from None
    except OperationalError as error:  # refused, unreachable, no such database: the text says which
        kind = InputError if url.startswith("sqlite") else EnvironmentFailure
        raise kind(f"--storage '{masked(url)}' cannot be opened: {_first_line(error.orig or error)}") from None
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, ValueError) as error:
        raise InputError(f"--storage '{masked(url)}' cannot be opened: {_first_line(error)}") from None


def _made(url: str, options: dict[str, Any]) -> RDBStorage:
    """The storage with its tables, which several processes may be making at this moment: then look again."""
    from sqlalchemy.exc import DBAPIError

    for attempt in range(1, ATTEMPTS):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except DBAPIError as error:
            if not re.search("already exists|duplicate|unique", str(error), re.IGNORECASE):
                raise
            time.sleep(0.2 * attempt)
    return RDBStorage(url, engine_kwargs=options)


def _with_driver(url: str) -> str:
    scheme, _, rest = url.partition(":")
    scheme = "postgresql" if scheme == "postgres" else scheme
    driver, _ = DRIVERS.get(scheme, ("", ""))
    return f"{scheme}+{driver}:{rest}" if driver and find_spec(driver) else f"{scheme}:{rest}"


def _engine_options(url: str) -> dict[str, Any]:
    # A connection that the server has dropped meanwhile (a candidate may take an hour) is opened anew.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": LOCKED_S}
    elif url.startswith(("postgres", "mysql")):
        options["connect_args"] = {"connect_timeout": CONNECT_S}
    return options


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def guarded(url: str) -> Iterator[None]:
    """A storage that is lost while the body runs becomes one line.

    Raises:
        EnvironmentFailure: it failed.
    """
    try:
        yield
    except failures() as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise EnvironmentFailure(f"the storage '{masked(url)}' failed: {text}") from error


def failures() -> tuple[type[BaseException], ...]:
    """What a storage raises when it is lost in the middle; only of those libraries that are in use."""
    found: list[type[BaseException]] = [optuna.exceptions.StorageInternalError, ConnectionError]
    if "sqlalchemy" in sys.modules:
        from sqlalchemy.exc import SQLAlchemyError

        found.append(SQLAlchemyError)
    if (grpc := sys.modules.get("grpc")) is not None:
        found.append(grpc.RpcError)
    return tuple(found)
