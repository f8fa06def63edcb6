"""Shell completion: what the shells are given, and that no framework is loaded for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Cli

HEAVY = ("torch", "onnx", "onnxruntime", "optuna", "numpy", "pydantic")
BASH = """
source {script}
complete -p orchestrate >/dev/null
COMP_WORDS=({words}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_orchestrate_completion orchestrate
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

Complete = Callable[[str], list[str]]


def environment(cli: Cli) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(cli.packages)}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `orchestrate completion bash` prints."""
    path = tmp_path_factory.mktemp("completion") / "script"
    command = [sys.executable, "-m", "orchestrator", "completion", "bash"]
    path.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return path


@pytest.fixture
def bash(cli: Cli, script: Path) -> Complete:
    """What bash offers for the last of some words, in the test's folder."""

    def complete(words: str) -> list[str]:
        command = ["bash", "--norc", "-c", BASH.format(words=words, script=script)]
        done = subprocess.run(command, cwd=cli.folder, env=environment(cli), capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("orchestrate rep", ["report"]),
        ("orchestrate search --wi", ["--without", "--without-plugin"]),
        ("orchestrate search --target rk", ["rk3588"]),
        ("orchestrate search --target raspberry-pi-z", ["raspberry-pi-zero-2", "raspberry-pi-zero-2-w"]),
        ("orchestrate search --device qemu:cortex-a7", ["qemu:cortex-a72", "qemu:cortex-a76"]),
        ("orchestrate search --method block", ["block-removal"]),
        ("orchestrate search --search no", ["no-training"]),
        ("orchestrate measure --runtime onn", ["onnxruntime"]),
        ("orchestrate profiles show nv", ["nvidia-t4"]),
        ("orchestrate devices setup q", ["qemu-aarch64"]),
        ("orchestrate search --without-plugin digi", ["digits"]),
    ],
)
def test_bash_offers_what_an_option_or_argument_takes(bash: Complete, words: str, offered: list[str]) -> None:
    assert bash(words) == offered


def test_bash_offers_run_directories_and_what_other_plugins_bring(
    bash: Complete, cli: Cli, installer: Callable[..., None]
) -> None:
    for name in ("runs/2026-11-22", "mine"):
        (cli.folder / name).mkdir(parents=True)
        (cli.folder / name / "results.json").touch()
    (cli.folder / "else").mkdir()
    installer("third", "raise ImportError('no')")
    assert bash("orchestrate resume ''") == ["mine", "runs/2026-11-22"]
    assert bash("orchestrate report runs/") == ["runs/2026-11-22"]
    assert bash("orchestrate search --without-plugin thi") == ["third"]
    assert bash("orchestrate search --target ho") == ["host"]


@pytest.mark.parametrize("words", ["search --target ", "search --method ", "search --device ", "search --", "resume ", ""])
def test_no_framework_is_loaded_for_a_completion(cli: Cli, words: str) -> None:
    asked = {
        "COMP_WORDS": f"orchestrate {words}",
        "COMP_CWORD": str(len(words.split()) + 1),
        "_ORCHESTRATE_COMPLETE": "bash_complete",
    }
    code = (
        "import sys\nfrom orchestrator.cli.program import program\n"
        "try: program(prog_name='orchestrate')\nexcept SystemExit: pass\n"
        f"print('loaded', *(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cli.folder,
        env={**environment(cli), **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.split() == ["loaded"]
    assert done.stdout or words == "resume "


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_of_other_shells_are_sound(cli: Cli, shell: str) -> None:
    done = cli("completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_ORCHESTRATE_COMPLETE" in done.stdout
    if shutil.which(shell) is not None:
        (cli.folder / "script").write_text(done.stdout)
        subprocess.run([shell, "-n", "script"], cwd=cli.folder, check=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_offers_targets(cli: Cli) -> None:
    command = ["fish", "--no-config", "-c", "orchestrate completion fish | source; complete -C 'orchestrate profiles show rk'"]
    done = subprocess.run(command, cwd=cli.folder, env=environment(cli), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["rk3588"]


def test_unknown_shell_is_refused_with_those_that_are_known(cli: Cli) -> None:
    done = cli("completion", "tcsh")
    assert done.returncode == 2
    assert "bash" in done.stderr and "fish" in done.stderr
