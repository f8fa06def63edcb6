"""The exchange: where the processes of one search leave files for each other. A folder, an object store: whatever fsspec opens.

Nothing that is half written is ever read: a file lies under its own digest and is checked when it is fetched; a document is
written under another name and moved into its place, and whoever announces it (in the study) says its digest.
"""

import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from orchestrator.errors import EnvironmentFailure, InputError
from orchestrator.values.distribution import install_command
from orchestrator.values.files import write_atomic

CHUNK_BYTES = 1 << 20
LOCAL = ("file", "local")
EXTRAS = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3")}
"""What fsspec needs for a protocol, and our extra that brings it."""


class Missing(Exception):
    """What was asked for is not there, or not whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file in the exchange.

    Attributes:
        name: What it is called in a candidate's folder.
        key: Where it lies.
        digest: SHA-256 of its content, hexadecimal.
    """

    name: str
    key: str
    digest: str
    size_bytes: int


class Exchange:
    """One search's part of a folder or an object store.

    Args:
        url: A path, or a URL of fsspec's (`s3://bucket/prefix`).
        study: The study's name, which keeps searches apart.

    Raises:
        InputError: the URL cannot be used, or a package is missing for it.
    """

    def __init__(self, url: str, study: str) -> None:
        from fsspec.core import url_to_fs

        self.url = url
        protocol = url.partition("://")[0] if "://" in url else "file"
        package, extra = EXTRAS.get(protocol, ("", ""))
        if package and find_spec(package) is None:
            raise InputError(f"--artifacts '{url}' needs the package {package}: {install_command(extra)}")
        try:
            self._fs, root = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InputError(f"--artifacts '{url}' cannot be used: {' '.join(str(error).split())}") from None
        self._local = protocol in LOCAL
        self._root = f"{root.rstrip('/')}/{study}"

    def check(self) -> None:
        """Write and delete something.

        Raises:
            InputError: that cannot be done.
        """
        key = f".probe-{secrets.token_hex(4)}"
        try:
            self.write(key, b"probe")
            self.delete(key)
        except EnvironmentFailure as error:
            raise InputError(f"--artifacts '{self.url}' cannot be written: {error.__cause__ or error}") from None

    def write(self, key: str, content: bytes) -> str:
        """Put a document there at once; returns its digest.

        Raises:
            EnvironmentFailure: the exchange is out of reach, full, ...
        """
        with self._guarded(key):
            path = self._made(key)
            if self._local:
                write_atomic(Path(path), content)
            else:
                temporary = f"{path}.{secrets.token_hex(8)}.tmp"
                self._fs.pipe_file(temporary, content)
                self._fs.mv(temporary, path)
        return hashlib.sha256(content).hexdigest()

    def read(self, key: str, digest: str | None = None) -> bytes:
        """A document.

        Args:
            digest: What it must have, where that is known.

        Raises:
            Missing: it is not there, or another one is.
            EnvironmentFailure: the exchange is out of reach.
        """
        with self._guarded(key):
            self._fs.invalidate_cache()
            content: bytes = self._fs.cat_file(self._path(key))
        if digest is not None and hashlib.sha256(content).hexdigest() != digest:
            raise Missing(key)
        return content

    def put(self, source: Path, folder: str) -> StoredFile:
        """Put a file there, under its digest.

        Raises:
            EnvironmentFailure: as `write`.
        """
        digest = digest_of(source)
        stored = StoredFile(name=source.name, key=f"{folder}/{digest[:32]}", digest=digest, size_bytes=source.stat().st_size)
        with self._guarded(stored.key):
            path = self._made(stored.key)
            temporary = f"{path}.{secrets.token_hex(8)}.tmp"
            self._fs.put_file(str(source), temporary)
            self._fs.mv(temporary, path)
        return stored

    def fetch(self, stored: StoredFile, folder: Path) -> Path:
        """Bring a file into a folder of this machine, whole.

        Raises:
            Missing: it is not there, or damaged.
            EnvironmentFailure: the exchange is out of reach.
            OSError: this machine's disk is full, ...
        """
        if Path(stored.name).name != stored.name or stored.name in ("", ".", ".."):  # from elsewhere: stays in its folder
            raise Missing(stored.key)
        folder.mkdir(parents=True, exist_ok=True)
        final = folder / stored.name
        temporary = folder / f".{secrets.token_hex(8)}.tmp"
        try:
            with self._guarded(stored.key):
                self._fs.get_file(self._path(stored.key), str(temporary))
            if digest_of(temporary) != stored.digest:
                raise Missing(stored.key)
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)
        return final

    def found(self, pattern: str) -> list[str]:
        """The documents, files and folders whose keys match, `*` for any name.

        Raises:
            EnvironmentFailure: the exchange is out of reach.
        """
        with self._guarded(pattern):
            self._fs.invalidate_cache()
            return [str(path).rstrip("/") for path in self._fs.glob(self._path(pattern))]

    def delete(self, key: str) -> None:
        """Remove a document, a file or a folder, where it is there: it is of no use any more."""
        with contextlib.suppress(Missing), self._guarded(key):
            self._fs.rm(self._path(key), recursive=True)

    def _path(self, key: str) -> str:
        if ".." in key.split("/"):
            raise Missing(key)
        return f"{self._root}/{key}"

    def _made(self, key: str) -> str:
        path = self._path(key)
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return path

    @contextlib.contextmanager
    def _guarded(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise Missing(key) from error
        except (Missing, EnvironmentFailure):
            raise
        except Exception as error:  # each file system has errors of its own, which share no base
            text = " ".join(str(error).split()) or type(error).__name__
            raise EnvironmentFailure(f"the exchange '{self.url}' failed: {text}") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()
