"""The store: results under the digest of all that they depend on, kept from run to run, bounded in size.

One file an entry. An entry is written under another name and renamed, so a reader finds all of it or nothing; it begins with the
digest of its content, so what was damaged is seen and made anew; it is read through one open file, so it may be evicted
meanwhile. Nothing here ever ends a run: a store that cannot be read has nothing, and one that cannot be written keeps nothing.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import platformdirs
from filelock import FileLock, Timeout

from orchestrator.values.units import parse_bytes

FOLDER, BOUND = "ORCHESTRATE_STORE", "ORCHESTRATE_STORE_BYTES"
OFF = "none"
BYTES = 10_000_000_000
FULL_AT, ROOM = 0.9, 0.8  # shares of the bound at which eviction begins, and down to which it goes
LOOK_AFTER = 0.02  # share of the bound that a process writes before it looks at what others wrote: five stay below the bound
ABANDONED_S = 3600.0  # a half-written file of a process that was killed
CHUNK = 1 << 20
HEADER = 65  # the SHA-256 of what follows, in hexadecimal, and a line feed


def store_folder(option: str | None) -> Path | None:
    """Where results are kept: the option, else the environment variable ORCHESTRATE_STORE, else the user's cache folder.

    Args:
        option: A folder, or "none".

    Returns:
        An absolute path; None: nothing is kept.
    """
    said = option or os.environ.get(FOLDER)
    if said is None:
        return platformdirs.user_cache_path("orchestrator", appauthor=False) / "store"
    return None if said == OFF else Path(said).expanduser().absolute()


def store_bytes() -> int:
    """Return the bound of the store's size.

    Raises:
        InputError: ORCHESTRATE_STORE_BYTES is no size.
    """
    said = os.environ.get(BOUND)
    if said is None:
        return BYTES
    return int(said) if said.isdecimal() and int(said) else parse_bytes(said, BOUND)


class Store:
    """Entries by kind and key.

    A kind is a word, a key a SHA-256 in hexadecimal. Several processes may use one folder.

    Args:
        folder: Made when the first entry is written; None: nothing is kept.
        bound: Bytes that all entries together may take.
        note: Told once, in a sentence, why the store is not used any more.
    """

    def __init__(self, folder: Path | None, *, bound: int, note: Callable[[str], None]) -> None:
        self._folder, self._bound, self._note = folder, bound, note
        self._written: int | None = None  # since all entries were looked at; None: they never were
        self._before = 0
        self._noted = False
        if folder is not None and (reason := _unsafe(folder)):
            self._stop(reason)

    @property
    def keeps(self) -> bool:
        """Return True if the store can be used."""
        return self._folder is not None

    def get(self, kind: str, key: str) -> bytes | None:
        """Return the content of an entry; None if there is none or it is damaged, in which case it is deleted."""
        parts: list[bytes] = []
        return b"".join(parts) if self._read(kind, key, parts.append) else None

    def fetch(self, kind: str, key: str, path: Path) -> bool:
        """Write the content of an entry to a file; whether there was one.

        Raises:
            OSError: `path` cannot be written.
        """
        if self._folder is None or not os.path.exists(self._path(kind, key)):  # noqa: PTH110  # pathlib's raises on some errors
            return False
        partial = path.with_name(f"{path.name}.partial")
        try:
            with partial.open("wb") as file:
                found = self._read(kind, key, file.write)
            if found:
                partial.replace(path)
            return found
        finally:
            partial.unlink(missing_ok=True)

    def put(self, kind: str, key: str, content: bytes) -> None:
        """Keep an entry."""
        digest = hashlib.sha256(content).hexdigest()
        self._write(kind, key, digest, len(content), lambda file: file.write(content))

    def put_file(self, kind: str, key: str, path: Path) -> None:
        """Keep the content of a file.

        Raises:
            OSError: `path` cannot be read.
        """
        if self._folder is None:
            return
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()

        def fill(file: BinaryIO) -> None:
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, CHUNK)

        self._write(kind, key, digest, path.stat().st_size, fill)

    def drop(self, kind: str, key: str) -> None:
        """Delete an entry that turned out to be of no use."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._path(kind, key).unlink()

    # -- reading and writing ----------------------------------------------------------------------------------------

    def _path(self, kind: str, key: str) -> Path:
        if self._folder is None:
            raise RuntimeError("nothing is kept")
        return self._folder / kind / key[:2] / key

    def _read(self, kind: str, key: str, take: Callable[[bytes], object]) -> bool:
        """Hand the content on, piece by piece; whether all of it was sound."""
        if self._folder is None:
            return False
        try:
            file = self._path(kind, key).open("rb")
        except OSError:
            return False
        digest, said = hashlib.sha256(), b""
        with file:
            with contextlib.suppress(OSError):  # used just now; in a folder that is read-only nobody can say so
                os.utime(file.fileno())
            for piece in _pieces(file):
                if not said:
                    said, piece = piece[:HEADER], piece[HEADER:]
                digest.update(piece)
                take(piece)
        if said == f"{digest.hexdigest()}\n".encode():
            return True
        self.drop(kind, key)
        return False

    def _write(self, kind: str, key: str, digest: str, size: int, fill: Callable[[BinaryIO], object]) -> None:
        size += HEADER
        if self._folder is None or self._noted or size > self._bound * ROOM:
            return
        try:
            try:
                self._written_whole(self._path(kind, key), digest, fill)
            except FileNotFoundError:  # somebody deleted the folder, or it was never made
                self._written_whole(self._path(kind, key), digest, fill)
            self._account(size)
        except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
            reason = getattr(error, "strerror", None) or str(error)
            self._noted = True  # what is there is still of use
            self._note(f"results are not kept for later runs any more: {reason} ({self._folder})")

    def _written_whole(self, path: Path, digest: str, fill: Callable[[BinaryIO], object]) -> None:
        if self._folder is None:
            return
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        # Networks are kept as pickles, which run code when they are read: nobody else may write here.
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if reason := _unsafe(self._folder):
            raise PermissionError(errno.EPERM, reason)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name[:16]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(f"{digest}\n".encode())
                fill(file)
            temporary.replace(path)  # not flushed to the disk: half an entry after a power cut is seen by its digest
        finally:
            temporary.unlink(missing_ok=True)

    # -- the bound --------------------------------------------------------------------------------------------------

    def _account(self, size: int) -> None:
        """Make room where it is needed. All entries are looked at now and then only: that takes a while where there are many."""
        if self._written is None:
            self._evict()
            return
        self._written += size
        if self._written > LOOK_AFTER * self._bound or self._before + self._written > FULL_AT * self._bound:
            self._evict()

    def _evict(self) -> None:
        """Delete what was not used for the longest time, until the rest has room."""
        if self._folder is None:
            return
        try:
            with FileLock(self._folder / "lock", timeout=0):
                entries = sorted(self._entries())
                total = sum(size for _, size, _ in entries)
                if total > FULL_AT * self._bound:
                    for _, size, path in entries:
                        if total <= ROOM * self._bound:
                            break
                        with contextlib.suppress(FileNotFoundError):
                            path.unlink()
                        total -= size
        except Timeout:  # another process is making room
            total = sum(size for _, size, _ in self._entries())
        except FileNotFoundError:  # somebody deleted the folder
            total = 0
        self._before, self._written = total, 0

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """(when it was used, size, path) of each entry; what a killed process left half written is deleted."""
        if self._folder is None:
            return
        for kind in _inside(self._folder):
            for part in _inside(Path(kind)) if kind.is_dir() else ():
                for entry in _inside(Path(part)) if part.is_dir() else ():
                    try:
                        found = entry.stat()
                    except OSError:
                        continue
                    if entry.name.endswith(".tmp") and time.time() - found.st_mtime > ABANDONED_S:
                        with contextlib.suppress(OSError):
                            Path(entry).unlink()
                        continue
                    yield found.st_mtime, found.st_size, Path(entry)

    def _stop(self, reason: str) -> None:
        self._folder = None
        self._note(f"results are neither taken from the store nor kept: {reason}")


def _inside(folder: Path) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from list(entries)
    except OSError:  # deleted meanwhile
        return


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    try:
        while piece := file.read(CHUNK):
            yield piece
    except OSError:  # the digest will say so
        return


def _unsafe(folder: Path) -> str | None:
    """Why results may not be read from a folder: somebody else could have written a pickle there that runs their code."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{error.strerror} ({folder})"
    if not stat.S_ISDIR(found.st_mode):
        return f"'{folder}' is no folder"
    if found.st_uid != os.getuid():
        return f"'{folder}' belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to '{folder}'; fix it with: chmod go-w {folder}"
    return None
