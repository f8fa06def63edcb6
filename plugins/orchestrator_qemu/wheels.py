"""Wheels for the guest, downloaded by this machine's pip and unpacked."""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from orchestrator.errors import EnvironmentFailure, InputError

PIP_S = 1800.0
OLDEST_GLIBC = 17  # of manylinux2014


def platforms(glibc: str) -> list[str]:
    """Return pip's names of the platforms whose wheels run with that C library ("2.36"), newest first."""
    newest = int(glibc.split(".")[1])
    return [f"manylinux_2_{minor}_aarch64" for minor in range(newest, OLDEST_GLIBC - 1, -1)] + ["manylinux2014_aarch64"]


def fetch(name: str, version: str | None, *, python: str, glibc: str, into: Path) -> str:
    """Download a wheel for the guest and unpack it.

    Args:
        name: Of the package, as pip has it.
        version: None: the newest that fits.
        python: The guest's Python ("3.11").
        glibc: Its C library ("2.36").
        into: The wheel's content lies in `NAME-VERSION` below it, all at once.

    Returns:
        The version.

    Raises:
        InputError: there is no such wheel for the guest.
        EnvironmentFailure: pip is missing, the network is not there, or the disk is full.
    """
    requirement = f"{name}=={version}" if version else name
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix=".fetching-") as part:
        _download(requirement, Path(part), python=python, glibc=glibc)
        wheel = next(Path(part).glob("*.whl"))
        found = wheel.name.split("-")[1]
        target = into / f"{name}-{found}"
        try:
            with zipfile.ZipFile(wheel) as file:
                file.extractall(Path(part) / "content")
            shutil.rmtree(target, ignore_errors=True)
            (Path(part) / "content").rename(target)
        except (OSError, zipfile.BadZipFile) as error:
            raise EnvironmentFailure(f"cannot unpack {wheel.name}: {error}") from None
    return found


def _download(requirement: str, folder: Path, *, python: str, glibc: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, "--dest", str(folder)]
    command += [word for platform in platforms(glibc) for word in ("--platform", platform)]
    try:
        done = subprocess.run(
            [*command, requirement], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFailure(f"pip does not work: {error}") from None
    if done.returncode == 0:
        return
    lines = [re.sub(r"^ERROR: ", "", line.strip()) for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    if any("No module named pip" in line for line in lines):
        raise EnvironmentFailure("wheels are downloaded with pip, which is not in this environment: python -m ensurepip")
    if any("No matching distribution" in line for line in lines) and not any("connection" in line.lower() for line in lines):
        raise InputError(f"there is no wheel of {requirement} for Python {python} on aarch64 (glibc {glibc})")
    raise EnvironmentFailure(f"pip cannot download {requirement}: {lines[-1][:300]}")
