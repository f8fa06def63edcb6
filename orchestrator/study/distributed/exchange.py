"""The exchange of files between the processes of a shared study: a folder or an object store that fsspec opens.

Nothing incomplete is ever read: a file is stored under its own digest and checked when it is fetched; a document is written under
another name and moved to its place, and its digest is announced in the study.
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

LOCAL = ("file", "local")
EXTRAS = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3")}
"""By protocol: the package that fsspec needs, and the extra that installs it."""


class Missing(Exception):
    """A document or file is missing or damaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file in the exchange.

    Attributes:
        name: File name in a candidate's folder.
        key: Key in the exchange.
        digest: SHA-256 of its content, hexadecimal.
    """

    name: str
    key: str
    digest: str
    size_bytes: int


class Exchange:
    """The documents and files of one study.

    Args:
        url: A path, or a URL of fsspec's (`s3://bucket/prefix`).
        study: Name of the study, which separates studies.

    Raises:
        InputError: The URL cannot be used, or a package for it is missing.
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
        """Check that the exchange can be written.

        Raises:
            InputError: It cannot.
        """
        key = f".probe-{secrets.token_hex(4)}"
        try:
            self.write(key, b"probe")
            self.delete(key)
        except EnvironmentFailure as error:
            raise InputError(f"--artifacts '{self.url}' cannot be written: {error.__cause__ or error}") from None

    def write(self, key: str, content: bytes) -> str:
        """Write a document at once, and return its digest.

        Raises:
            EnvironmentFailure: The exchange is out of reach or full.
        """
        with self._guarded(key):
            path = self._create_folder(key)
            if self._local:
                write_atomic(Path(path), content)
            else:
                temporary = f"{path}.{secrets.token_hex(8)}.tmp"
                self._fs.pipe_file(temporary, content)
                self._fs.mv(temporary, path)
        return hashlib.sha256(content).hexdigest()

    def read(self, key: str, digest: str | None = None) -> bytes:
        """Return a document.

        Args:
            key: Key of the document.
            digest: Its expected digest, or None for any.

        Raises:
            Missing: It is missing or another one.
            EnvironmentFailure: The exchange is out of reach.
        """
        with self._guarded(key):
            self._fs.invalidate_cache()
            content: bytes = self._fs.cat_file(self._path(key))
        if digest is not None and hashlib.sha256(content).hexdigest() != digest:
            raise Missing(key)
        return content

    def put(self, source: Path, folder: str) -> StoredFile:
        """Store a file under its digest.

        Raises:
            EnvironmentFailure: See `write`.
        """
        digest = digest_of(source)
        stored = StoredFile(name=source.name, key=f"{folder}/{digest[:32]}", digest=digest, size_bytes=source.stat().st_size)
        with self._guarded(stored.key):
            path = self._create_folder(stored.key)
            temporary = f"{path}.{secrets.token_hex(8)}.tmp"
            self._fs.put_file(str(source), temporary)
            self._fs.mv(temporary, path)
        return stored

    def fetch(self, stored: StoredFile, folder: Path) -> Path:
        """Copy a file into a folder of this machine.

        Raises:
            Missing: It is missing or damaged.
            EnvironmentFailure: The exchange is out of reach.
            OSError: This machine's disk is full or read-only.
        """
        if Path(stored.name).name != stored.name or stored.name in (
            "",
            ".",
            "..",
        ):  # must not leave the folder
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

    def glob(self, pattern: str) -> list[str]:
        """Return the documents, files and folders whose keys match a pattern, with `*` for any name.

        Raises:
            EnvironmentFailure: The exchange is out of reach.
        """
        with self._guarded(pattern):
            self._fs.invalidate_cache()
            return [str(path).rstrip("/") for path in self._fs.glob(self._path(pattern))]

    def delete(self, key: str) -> None:
        """Delete a document, a file or a folder if it exists."""
        with contextlib.suppress(Missing), self._guarded(key):
            self._fs.rm(self._path(key), recursive=True)

    def _path(self, key: str) -> str:
        if ".." in key.split("/"):
            raise Missing(key)
        return f"{self._root}/{key}"

    def _create_folder(self, key: str) -> str:
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
        except Exception as error:  # the errors of file systems share no base class
            text = " ".join(str(error).split()) or type(error).__name__
            raise EnvironmentFailure(f"the exchange '{self.url}' failed: {text}") from error


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
