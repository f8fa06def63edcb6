"""Setup of a board over ssh: a folder with a virtual environment that contains a runtime and NumPy."""

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.plugin import Runtime, SetupOptions
from orchestrator.plugin.processes import PIP_S
from orchestrator_devices import known_boards
from orchestrator_devices.board import BoardConnection
from orchestrator_devices.openssh import Address

OLDEST_GLIBC = 17  # manylinux2014
Progress = Callable[[str], None]


def set_up(address: Address, options: SetupOptions, progress: Progress) -> str:
    """Create the folder, the virtual environment and the packages on a board, or repair what is broken of them.

    Without a version the runtime's is the one that is installed here, or the newest that fits the board. Offline the wheels are
    downloaded here, not by the board's own pip.

    Returns:
        The versions that are set up, for the user.

    Raises:
        InputError: Something is missing that cannot be set up, or no wheel fits the board.
        DeviceUnavailable: The board is out of reach or in use.
        EnvironmentFailure: Its disk is full.
    """
    reference, runtime, exact_version, offline = address.reference, options.runtime, options.version, options.offline
    progress(f"{reference}: logging in")
    with _held(address) as board:
        survey = board.ask("survey")
        progress(f"{reference}: {survey['machine']}, {survey['libc'] or survey['system']} {survey['libc_version']}, "
                 f"Python {survey['python']}, {survey['free_disk_bytes'] / 1e9:.1f} GB free")  # fmt: skip
        required = _requirements(runtime, exact_version)
        needed = {"numpy", *runtime.imports}
        if survey["venv"] and _covers(survey["asked"], required):
            found = board.modules(needed)
            if all("version" in answer for answer in found.values()):
                return _done(reference, survey, found, changed=False)
        if not survey["venv"]:
            progress(f"{reference}: creating the virtual environment")
            board.ask("make_venv", timeout_s=PIP_S)
        _install(board, survey, required, exact=exact_version is not None, offline=offline, progress=progress)
        progress(f"{reference}: testing the packages")
        found = board.modules(needed)
        if any("error" in answer for answer in found.values()) and int(found["numpy"].get("version", "0").partition(".")[0]) >= 2:
            progress(f"{reference}: this runtime may have been built for NumPy 1")
            _get(board, survey, ["numpy<2"], offline=offline, progress=progress)
            board.ask("unpack", asked={**_before(survey), **required}, timeout_s=PIP_S)
            found = board.modules(needed)
        for name, answer in sorted(found.items()):
            if "error" in answer:
                raise InputError(f"board {reference}: {distribution_of(name)} is installed but cannot be used: {answer['error']}")
        return _done(reference, survey, found, changed=True)


def remove(address: Address) -> str | None:
    """Delete the board's folder, and return its path, or None if there was none.

    Raises:
        InputError: The board cannot be used as it is.
        DeviceUnavailable: It is out of reach or in use.
    """
    folder = None
    if BoardConnection(address, system=True).exists():
        with _held(address) as board:
            folder = str(board.ask("remove", timeout_s=PIP_S)["folder"])
    known_boards.forget(address.reference)
    return folder


@contextmanager
def _held(address: Address) -> Iterator[BoardConnection]:
    """Lock the board, so that no search times there meanwhile."""
    board = BoardConnection(address, system=True)
    try:
        board.lock()
        yield board
    finally:
        board.disconnect()


def _requirements(runtime: Runtime, exact: str | None) -> dict[str, str | None]:
    """Return `{package: version}`; None is the newest that fits."""
    required: dict[str, str | None] = {"numpy": None}
    for module in runtime.imports:
        if module == "numpy":
            continue
        package = distribution_of(module)
        try:
            required[package] = exact or version(package)
        except PackageNotFoundError:
            required[package] = exact
    return required


def _covers(before: dict[str, Any], required: dict[str, str | None]) -> bool:
    """Return True if all requirements were installed before."""
    return required.items() <= before.items()


def _before(survey: dict[str, Any]) -> dict[str, Any]:
    """Return earlier requirements, those of other runtimes included."""
    return dict(survey["asked"]) if survey["venv"] else {}


def _done(reference: str, survey: dict[str, Any], found: dict[str, Any], *, changed: bool) -> str:
    versions = {name: str(answer["version"]) for name, answer in found.items()}
    facts = {"set_up": date.today().isoformat(), "machine": survey["machine"], "versions": versions}
    known_boards.remember(reference, facts)
    names = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    return f"{reference} {'is set up' if changed else 'was set up already'}: {names}"


def _install(
    board: BoardConnection,
    survey: dict[str, Any],
    required: dict[str, str | None],
    *,
    exact: bool,
    offline: bool,
    progress: Progress,
) -> None:
    board.ask("clear_wheels")
    for package, number in required.items():
        choices = [f"{package}=={number}"] if number else []
        if not (exact and number):
            choices.append(package)
        _get(board, survey, choices, offline=offline, progress=progress)
    wheels = board.ask("unpack", asked={**_before(survey), **required}, timeout_s=PIP_S)["wheels"]
    progress(f"{board.name}: installed {', '.join('-'.join(wheel.split('-')[:2]) for wheel in wheels)}")


def _get(board: BoardConnection, survey: dict[str, Any], choices: list[str], *, offline: bool, progress: Progress) -> None:
    """Download the first requirement that has a wheel, with the board's own pip or else with this host's."""
    problem = ""
    for choice in choices:
        if problem:
            progress(f"{board.name}: no wheel of {choices[0]} fits the board, so the newest that does")
        if not offline:
            progress(f"{board.name}: its own pip looks for {choice}")
            answer = board.ask("download", requirements=[choice], timeout_s=PIP_S + 60)["problem"]
            if answer is None:
                return
        progress(f"{board.name}: looking here for a wheel of {choice}")
        with tempfile.TemporaryDirectory() as folder:
            problem = _download_here(choice, survey, Path(folder)) or ""
            for wheel in sorted(Path(folder).glob("*.whl")):
                progress(f"{board.name}: copying {wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB)")
                with wheel.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                board.store(wheel, folder="wheels", name=wheel.name, sha256=digest)
        if not problem:
            return
    raise InputError(
        f"board {board.name}: there is no wheel of {choices[0]} for Python {survey['python']} on {survey['machine']} "
        f"({survey['libc'] or survey['system']} {survey['libc_version']}): {problem}"
    )


def _download_here(requirement: str, survey: dict[str, Any], folder: Path) -> str | None:
    """Download a wheel that fits the board with this host's pip, and return pip's message if there is none."""
    platforms = [word for name in platforms_of(survey) for word in ("--platform", name)]
    python = ".".join(survey["python"].split(".")[:2])
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]
    done = subprocess.run(
        [*command, "--dest", str(folder), requirement],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PIP_S,
        check=False,
    )
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        raise InputError("wheels are downloaded with pip, which is not in this environment: python -m ensurepip")
    return re.sub(r"^ERROR: ", "", lines[-1])[:300] if lines else f"pip ended with exit code {done.returncode}"


def distribution_of(module: str) -> str:
    """Return the pip package that contains a module, as far as this host knows."""
    return next(iter(packages_distributions().get(module, ())), module)


def platforms_of(survey: dict[str, Any]) -> list[str]:
    """Return pip's names of the platforms whose wheels run on the board, newest first."""
    machine = survey["machine"]
    if machine == "aarch64" and survey["bits"] == 32:
        machine = "armv7l"  # a 32-bit system on a 64-bit kernel
    if survey["libc"] == "musl":
        return [f"musllinux_1_{minor}_{machine}" for minor in (2, 1)]
    if survey["libc"] != "glibc":
        raise InputError(f"boards with {survey['system']} are not set up from here: only Linux is")
    minor = int(survey["libc_version"].split(".")[1])
    names = [f"manylinux_2_{number}_{machine}" for number in range(minor, OLDEST_GLIBC - 1, -1)]
    return [*names, f"manylinux2014_{machine}", f"linux_{machine}"]
