"""Atomic writing of files."""

import os
import secrets
from pathlib import Path


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Write `data` to `path` atomically: under a temporary name in the same folder, flushed to disk, then renamed.

    Args:
        path: The file; its folder must exist. An existing file is replaced.
        data: The whole content; text is encoded as UTF-8.
        durable: True if it must survive a power loss. Without the flush a file costs a tenth and survives a killed process, but
            a power loss may leave an empty file, which the reader must tolerate.

    Raises:
        OSError: The disk is full, the folder is missing or read-only, ...; `path` is then unchanged.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        # "x" and not mkstemp: the file gets the permissions of the user's umask, not 0600.
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def left_behind(folder: Path) -> list[Path]:
    """Return temporary files that killed processes left in a folder; the caller must be its only writer."""
    return sorted(folder.glob(".*.tmp"))


def drop_half_line(path: Path) -> None:
    """Remove an incomplete last line from a file. The caller holds its lock, or is its only user.

    Raises:
        OSError: It cannot be read or written.
    """
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
