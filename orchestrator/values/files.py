"""Writing a file so that a reader, at any moment, finds the old content or the new one and never half of it."""

import os
import secrets
from pathlib import Path


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Write `data` to `path` at once: a temporary name in the same folder, flushed to the disk, then renamed.

    Args:
        path: Where to; its folder must exist. What is there already is replaced.
        data: The whole content; text is encoded as UTF-8.
        durable: Whether it must outlive a loss of power too. Not flushed, a file costs a tenth, and a killed process loses
            nothing either; a machine that loses its power may keep an empty file, which the reader must bear.

    Raises:
        OSError: The disk is full, the folder is missing or read-only, ...; `path` is then as it was before.
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
    """Temporary files in a folder that killed processes left; whoever asks must be the only writer there."""
    return sorted(folder.glob(".*.tmp"))


def drop_half_line(path: Path) -> None:
    """Cut half a line off the end of a file of lines. The caller holds its lock, or is alone.

    Raises:
        OSError: it cannot be read or written.
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
