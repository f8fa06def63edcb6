"""The set-up: which qemu will do, what stands in the manifest, and one clear line for each thing that can be missing."""

import dataclasses
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from orchestrator.errors import EnvironmentFailure, InputError
from orchestrator_qemu import debian, provision, wheels
from orchestrator_qemu.cpus import CPUS
from orchestrator_qemu.qemu import PLUGIN, Qemu, compile_counter, source_version
from orchestrator_qemu.toolchain import Toolchain
from orchestrator_qemu.trace import PHASE, read
from tests.qemu.conftest import FOLDER


def fake_qemu(folder: Path, version: str, *, plugins: bool = True) -> Path:
    """A program that answers `--version` and `--help` like qemu."""
    path = folder / "qemu-aarch64"
    options = "-plugin QEMU_PLUGIN [file=]<file>" if plugins else "-cpu QEMU_CPU"
    path.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"print('qemu-aarch64 version {version} (Debian 1:7.2)' if '--version' in sys.argv else {options!r})\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def made(tmp_path: Path) -> Toolchain:
    """A set-up whose parts are empty."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    toolchain = Toolchain(
        folder=tmp_path / "set, up",
        qemu=(str(fake_qemu(bin_folder, "7.2.22")),),
        qemu_version="7.2.22",
        plugin_version=source_version(*PLUGIN),
        distribution="debian 12",
        guest={"libc6": "2.36-9+deb12u13", "libstdc++6": "12.2.0-14"},
        python="3.11",
        packages={"onnxruntime": "1.31.1", "numpy": "2.4.6"},
    )
    for folder in (toolchain.folder / "roots", toolchain.package("onnxruntime", "1.31.1"), toolchain.package("numpy", "2.4.6")):
        folder.mkdir(parents=True)
    toolchain.counter.touch()
    return toolchain


# -- qemu -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "api"), [("6.2.0", 1), ("7.2.22", 1), ("8.2.2", 1), ("9.0.1", 2), ("9.1.0", 3), ("10.0.13", 3), ("11.0.0", 3)]
)
def test_each_version_of_qemu_gets_the_plugin_interface_that_it_has(tmp_path: Path, version: str, api: int) -> None:
    qemu = Qemu.of([str(fake_qemu(tmp_path, version))])
    assert (qemu.version, qemu.api) == (version, api)


def test_a_qemu_without_plugins_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match=r"10\.0\.13 takes no plugins, as all that are statically linked"):
        Qemu.of([str(fake_qemu(tmp_path, "10.0.13", plugins=False))])


def test_an_old_qemu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match=r"is version 5\.2\.0; simulated execution needs 6\.0 or later"):
        Qemu.of([str(fake_qemu(tmp_path, "5.2.0"))])


def test_a_missing_qemu_and_a_missing_compiler_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFailure, match="qemu-aarch64 is not installed"):
        Qemu.on_path()
    with pytest.raises(EnvironmentFailure, match="there is no C compiler"):
        compile_counter(Qemu(command=("qemu",), version="7.2.22"), tmp_path / "counter.so")


@pytest.mark.parametrize("version", ["7.2.22", "9.0.0", "10.0.13"])
def test_the_plugin_compiles_for_each_interface(counter: Path, tmp_path: Path, version: str) -> None:
    compile_counter(Qemu(command=("qemu",), version=version), tmp_path / "counter.so")
    assert (tmp_path / "counter.so").read_bytes()[:4] == b"\x7fELF"


# -- the manifest ---------------------------------------------------------------------------------------------------


def test_what_is_written_is_found(made: Toolchain) -> None:
    assert Toolchain.find(made.folder) is None
    made.write()
    assert Toolchain.find(made.folder) == made


@pytest.mark.parametrize("text", ["", "{", "[]", '{"layout": 0}', '{"layout": 1, "qemu": []}'])
def test_half_a_manifest_is_none(made: Toolchain, text: str) -> None:
    (made.folder / "manifest.json").write_text(text)
    assert Toolchain.find(made.folder) is None


def test_missing_parts_and_other_versions_are_told(made: Toolchain) -> None:
    dataclasses.replace(made, plugin_version="other").write()
    with pytest.raises(EnvironmentFailure, match="by another version of the orchestrator: orchestrate devices setup"):
        Toolchain.find(made.folder)
    dataclasses.replace(made, qemu_version="8.2.2").write()
    with pytest.raises(EnvironmentFailure, match=r"qemu is 7\.2\.22 now, but simulated execution was set up for 8\.2\.2"):
        Toolchain.find(made.folder)
    made.write()
    made.counter.unlink()
    with pytest.raises(EnvironmentFailure, match=r"counter\.so, a part of simulated execution, is gone"):
        Toolchain.find(made.folder)


def test_the_command_names_cpu_root_plugin_and_caches(made: Toolchain, tmp_path: Path) -> None:
    command = made.command(CPUS["cortex-a76"], trace=tmp_path / "trace.bin")
    plugin = command[command.index("-plugin") + 1]
    assert command[command.index("-cpu") + 1] == "cortex-a76"
    assert command[-1] == str(made.folder / "roots/cortex-a76/usr/bin/python3.11")
    assert plugin == f"{tmp_path}/set,, up/counter.so,out={tmp_path}/trace.bin,caches=64:4:512:8:2048:16"
    assert "-plugin" not in made.command(CPUS["cortex-a76"])
    assert made.environment()["PYTHONPATH"] == "/site/numpy-2.4.6:/site/onnxruntime-1.31.1"
    assert made.guest_version == "debian 12, Python 3.11, libc6 2.36-9+deb12u13, libstdc++6 12.2.0-14"


# -- the distribution and wheels ------------------------------------------------------------------------------------


def test_other_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tmp_path / "os-release"
    monkeypatch.setattr(debian, "OS_RELEASE", said)
    said.write_text('ID=fedora\nPRETTY_NAME="Fedora Linux 42"\n')
    with pytest.raises(EnvironmentFailure, match="packages of Debian or Ubuntu, but this is Fedora Linux 42"):
        provision.set_up(at=tmp_path / "there", progress=print)
    said.unlink()
    with pytest.raises(EnvironmentFailure, match=f"but this is {os.uname().sysname}"):
        debian.release()


def test_children_of_debian_count_as_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setattr(debian, "TOOLS", ())
    (tmp_path / "os-release").write_text('ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\n')
    assert debian.release() == ("linuxmint", "22")
    monkeypatch.setattr(debian, "TOOLS", ("no-such-tool",))
    with pytest.raises(EnvironmentFailure, match="no-such-tool is not installed"):
        debian.release()


def test_sources_of_both_notations_are_read() -> None:
    deb822 = (
        "Types: deb deb-src\nURIs: http://mirror.example/debian\nSuites: one two\nComponents: main extra\n"
        "Signed-By: /keys/k.gpg\n\nEnabled: no\nTypes: deb\nURIs: http://other.example/\nSuites: x\n"
    )
    assert debian.one_line_sources(deb822, deb822=True) == [
        "deb [signed-by=/keys/k.gpg] http://mirror.example/debian one main extra",
        "deb [signed-by=/keys/k.gpg] http://mirror.example/debian two main extra",
    ]
    assert debian.one_line_sources("# no\ndeb http://a/ b c\ndeb-src http://a/ b c\n", deb822=False) == ["deb http://a/ b c"]


def test_ubuntus_other_architectures_lie_on_its_ports_host() -> None:
    lines = [
        "deb http://de.archive.distro.example/ubuntu noble main",
        "deb http://security.distro.example/ubuntu x main",
        "deb http://p/ y",
    ]
    assert debian.on_ports(lines) == [
        "deb http://ports.distro.example/ubuntu-ports noble main",
        "deb http://ports.distro.example/ubuntu-ports x main",
    ]


def test_wheels_are_asked_for_by_the_guests_c_library() -> None:
    names = wheels.platforms("2.36")
    assert names[0] == "manylinux_2_36_aarch64"
    assert names[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]


def test_pips_complaints_become_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = tmp_path / "python"
    pip.write_text('#!/bin/sh\necho "ERROR: No matching distribution found for nothing==1" >&2\nexit 1\n')
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    with pytest.raises(InputError, match=r"no wheel of nothing==1 for Python 3\.11 on aarch64 \(glibc 2\.36\)"):
        wheels.fetch("nothing", "1", python="3.11", glibc="2.36", into=tmp_path / "packages")
    pip.write_text('#!/bin/sh\necho "ERROR: Connection refused" >&2\nexit 1\n')
    with pytest.raises(EnvironmentFailure, match="pip cannot download nothing==1: Connection refused"):
        wheels.fetch("nothing", "1", python="3.11", glibc="2.36", into=tmp_path / "packages")
    assert list((tmp_path / "packages").iterdir()) == []


def test_two_cannot_set_up_at_once(tmp_path: Path) -> None:
    at = tmp_path / "qemu-aarch64"
    with (
        FileLock(tmp_path / "qemu-aarch64.lock"),
        pytest.raises(EnvironmentFailure, match="another process is setting up simulated execution"),
    ):
        provision.set_up(at=at, progress=print)


def test_what_a_killed_setup_left_goes_with_the_next(made: Toolchain) -> None:
    made.write()
    for name in (".orchestrate-unfinished-1", "tmp", "building-site", "running-shoes"):
        (made.folder / name).mkdir()
        (made.folder / name / "half").touch()
    users = ["building-site", "running-shoes", "tmp"]
    with provision._alone(made.folder):
        found = sorted(path.name for path in made.folder.iterdir())
    assert found == sorted(["counter.so", "manifest.json", "packages", "roots", *users])
    provision.remove(at=made.folder)
    assert sorted(path.name for path in made.folder.iterdir()) == users, "they are not the set-up's"


def test_a_wheel_that_was_not_compiled_to_the_end_is_none(made: Toolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed or out of time while a guest compiles it: the next set-up must not take it for whole."""

    def fetch(name: str, version: str | None, *, python: str, glibc: str, into: Path) -> str:
        (into / f"{name}-9.9").mkdir()
        return "9.9"

    def late(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("compileall", 900)

    monkeypatch.setattr(wheels, "fetch", fetch)
    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(EnvironmentFailure, match=r"compiling onnxruntime-9\.9 in the guest took more than"):
        provision._fetch(made, "onnxruntime", "9.9")
    assert not made.package("onnxruntime", "9.9").exists()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    assert provision._fetch(made, "onnxruntime", "9.9") == "9.9"
    assert made.package("onnxruntime", "9.9").is_dir()
    assert sorted(path.name for path in made.folder.iterdir()) == ["counter.so", "packages", "roots"]


def test_removing_leaves_nothing(made: Toolchain) -> None:
    made.write()
    assert provision.remove(at=made.folder)
    assert not made.folder.exists()
    assert not provision.remove(at=made.folder)


def test_removing_leaves_what_is_not_its_own(made: Toolchain) -> None:
    made.write()
    (made.folder / "models").mkdir()
    assert provision.remove(at=made.folder) == made.folder
    assert [path.name for path in made.folder.iterdir()] == ["models"]
    assert provision.remove(at=made.folder) is None


@pytest.mark.slow
def test_what_is_set_up_is_found_quickly(toolchain: Toolchain) -> None:
    """The user's own set-up: nothing is fetched again."""
    said: list[str] = []
    with FileLock(FOLDER.with_name("tests.lock")):  # another process's tests may be setting it up
        assert provision.set_up(runtime_wheels=toolchain.packages, at=toolchain.folder, progress=said.append) == toolchain
    assert said == []


# -- traces ---------------------------------------------------------------------------------------------------------


def test_a_trace_that_is_cut_short_or_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(b"".join(number.to_bytes(8, "little") for number in (PHASE, 1, 2, 0x1000, 5, 3)))
    with pytest.raises(EnvironmentFailure, match="cut short"):
        read(path)
    path.write_bytes(json.dumps({"no": "trace"}).encode())
    with pytest.raises(EnvironmentFailure, match="no trace"):
        read(path)
    path.write_bytes(b"")
    assert read(path) == []
