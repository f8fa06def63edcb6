"""Environments with nothing but the product, as a person who tries an example has."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Cli

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "runs")
Installer = Callable[[str], Cli]


def pip(python: Path, *arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def link(source: str, target: str) -> None:
    """Link a file, or copy it to another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the product as the README installs it, and pytest.

    ORCHESTRATE_TEST_ENVIRONMENT names one with the product, where that is made already: CI has it.
    """
    folder = tmp_path_factory.mktemp("product")
    if installed := os.environ.get("ORCHESTRATE_TEST_ENVIRONMENT"):
        shutil.copytree(installed, folder / "venv", copy_function=link, symlinks=True)
        pip(folder / "venv" / "bin" / "python", "-c", str(ROOT / "constraints.txt"), "pytest")
        return folder / "venv"
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)  # building writes into the folder
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip(folder / "venv" / "bin" / "python", "-c", str(ROOT / "constraints.txt"), f"{source}[testing]")
    return folder / "venv"


@pytest.fixture
def fresh(product: Path, cli: Cli, tmp_path: Path) -> Installer:
    """The command line of an environment of its own, into which the named example has been installed by pip."""

    def run(name: str) -> Cli:
        venv = tmp_path / "venv"
        shutil.copytree(product, venv, copy_function=link, symlinks=True)  # one gigabyte, for each test
        example = shutil.copytree(ROOT / "examples" / name, tmp_path / "example")
        limits = [f"-c{path}" for path in (ROOT / "constraints.txt", example / "constraints.txt") if path.exists()]
        pip(venv / "bin" / "python", *limits, str(example))
        return Cli(folder=cli.folder, packages=cli.packages, python=str(venv / "bin" / "python"))

    return run
