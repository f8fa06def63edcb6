"""The emulator of this machine. Where it is missing its tests are skipped, but never in continuous integration."""

import os
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock

from orchestrator.errors import EnvironmentFailure
from orchestrator_qemu.provision import set_up
from orchestrator_qemu.qemu import Qemu, compile_counter
from orchestrator_qemu.toolchain import Toolchain

CI = os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def qemu() -> Qemu:
    try:
        return Qemu.on_path()
    except EnvironmentFailure as error:
        if CI:
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def counter(qemu: Qemu, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled plugin."""
    path = tmp_path_factory.mktemp("plugin") / "counter.so"
    try:
        compile_counter(qemu, path)
    except EnvironmentFailure as error:
        if CI or "no C compiler" not in str(error):
            raise
        pytest.skip(str(error))
    return path


# What the other tests do not see (tests/conftest.py): a search uses by itself what is set up.
FOLDER = platformdirs.user_cache_path("orchestrator", appauthor=False) / "qemu-aarch64"


@pytest.fixture(scope="session")
def toolchain(qemu: Qemu) -> Toolchain:
    """This user's set-up; continuous integration makes one, once for all the processes that tests run in."""
    if CI:
        FOLDER.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(FOLDER.with_name("tests.lock")):
            return set_up(at=FOLDER, progress=print)
    found = Toolchain.find(FOLDER)
    if found is None:
        pytest.skip("simulated execution is not set up here: orchestrate devices setup qemu-aarch64")
    return found
