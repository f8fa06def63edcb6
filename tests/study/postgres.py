"""A real PostgreSQL for a test or a measurement: Debian's package, a folder of its own, a socket and no port."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("initdb", "postgres", "pg_isready")


def programs() -> Path | None:
    """Where PostgreSQL's programs are; None where it is not installed."""
    known = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *map(Path, os.environ["PATH"].split(os.pathsep))]
    return next((folder for folder in known if all((folder / name).is_file() for name in PROGRAMS)), None)


@contextmanager
def server(*options: str) -> Iterator[str]:
    """The URL of a server that ends with the body.

    Args:
        options: Settings, as `fsync=off`.
    """
    there = programs()
    if there is None:
        raise FileNotFoundError("PostgreSQL is not installed here")
    # It will not run as root; its folder is not below pytest's, which only its owner may enter.
    owner: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if owner:
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"
    make = [there / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
    subprocess.run(make, check=True, cwd=folder, capture_output=True, **owner)
    settings = [word for option in ("listen_addresses=", *options) for word in ("-c", option)]
    running = subprocess.Popen(
        [there / "postgres", "-D", data, "-k", folder, *settings],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **owner,
    )
    try:
        deadline = time.monotonic() + 60
        while subprocess.run([there / "pg_isready", "-h", folder], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline or running.poll() is not None:
                raise RuntimeError("PostgreSQL does not start")
            time.sleep(0.1)
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        running.send_signal(signal.SIGINT)  # "fast": clients are thrown out
        running.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
