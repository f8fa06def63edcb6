"""Optuna storages by URL: a database, a gRPC proxy of one, or a journal in a shared folder."""

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
"""Seconds within which a storage must answer."""
ATTEMPTS = 6
"""Attempts to create a database's tables while other processes do."""
LOCKED_S = 60
"""Seconds that SQLite waits for other processes."""
GRPC_PORT = 13000
DRIVERS = {"postgresql": ("psycopg", "postgresql"), "mysql": ("pymysql", "mysql")}
"""By scheme: the driver of a URL that names none, and the extra that installs it."""


class SharedJournal(JournalFileBackend):
    """Optuna's journal that removes half a line at its end, which a machine that lost its power may have left.

    Optuna would append the next record to that half line, and neither could be read any more.
    """

    def __init__(self, path: Path) -> None:
        # The lock is a link to the path, resolved from the lock's own folder: a relative path would be wrong there.
        self._path = path.resolve()
        lock = JournalFileSymlinkLock(str(self._path))
        super().__init__(str(self._path), lock)
        self._writing = lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records after the last complete one."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._writing.acquire()
        try:
            drop_half_line(self._path)
            with self._path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            with contextlib.suppress(RuntimeError):  # held so long that another process considered this one dead
                self._writing.release()


def open_storage(url: str) -> BaseStorage:
    """Return a storage that several processes may use at once.

    Args:
        url: A database of SQLAlchemy's (`postgresql://...`, `mysql://...`, `sqlite:///FILE`), `grpc://HOST:PORT` of Optuna's gRPC
            proxy, or `journal:FILE` in a folder that all machines see.

    Raises:
        InputError: The URL is wrong, a driver is missing, or the storage refuses access.
        EnvironmentFailure: It does not answer.
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
    """Return the URL with absolute paths of files, so that it is valid in another folder."""
    if url.startswith("journal:"):
        return f"journal:{Path(url.removeprefix('journal:')).absolute()}"
    path = url.removeprefix("sqlite:///")
    if path == url or not path or path.startswith(("/", ":memory:", "?", "file:")):
        return url
    return f"sqlite:///{Path(path).absolute()}"


def masked(url: str) -> str:
    """Return the URL without its password, which may hold an `@` or be one of the options."""
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
    match = re.fullmatch(r"//(\[[^\]]+\]|[^:/\[\]]+)(?::(\d+))?/?", rest)
    if match is None:
        raise InputError(f"--storage '{url}' cannot be read; write it like grpc://HOST:{GRPC_PORT}")
    if find_spec("grpc") is None:
        raise InputError(f"--storage '{url}' needs the package grpcio: {install_command('grpc')}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.GrpcStorageProxy(host=match[1], port=int(match[2] or GRPC_PORT))
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
        return _with_tables(_with_driver(url), _engine_options(url))
    except ImportError as error:
        cause = error.__cause__ or error
        extra = next((extra for scheme, (_, extra) in DRIVERS.items() if url.startswith(scheme)), None)
        how = f": {install_command(extra)}" if extra else ""
        raise InputError(f"--storage '{masked(url)}' needs a driver that is not installed ({cause}){how}") from None
    except OperationalError as error:  # refused, unreachable, or no such database
        kind = InputError if url.startswith("sqlite") else EnvironmentFailure
        raise kind(f"--storage '{masked(url)}' cannot be opened: {_first_line(error.orig or error)}") from None
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, ValueError) as error:
        raise InputError(f"--storage '{masked(url)}' cannot be opened: {_first_line(error)}") from None


def _with_tables(url: str, options: dict[str, Any]) -> RDBStorage:
    """Return the storage with its tables, which other processes may be creating at the same time."""
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
    # A candidate may take an hour: a connection that the server has dropped meanwhile is opened again.
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
    """Turn the loss of a storage while the body runs into one line.

    Raises:
        EnvironmentFailure: The storage failed.
    """
    try:
        yield
    except failures() as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise EnvironmentFailure(f"the storage '{masked(url)}' failed: {text}") from error


def failures() -> tuple[type[BaseException], ...]:
    """Return the errors of a storage that is lost, of those libraries that are in use."""
    errors: list[type[BaseException]] = [optuna.exceptions.StorageInternalError, ConnectionError]
    if "sqlalchemy" in sys.modules:
        from sqlalchemy.exc import SQLAlchemyError

        errors.append(SQLAlchemyError)
    if (grpc := sys.modules.get("grpc")) is not None:
        errors.append(grpc.RpcError)
    return tuple(errors)
