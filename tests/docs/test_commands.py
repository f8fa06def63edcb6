"""What README.md and the documentation tell people to type works; what is exempted says why.

Each page is run in a folder of its own, its blocks in their order. Before a block stands, where needed:

    <!-- not run: REASON -->      a reason that EXEMPTIONS knows
    <!-- slow -->                 run with the slow tests
    <!-- ends with 0 or 3 -->     other exit codes than 0
    <!-- saved as model.py -->    a file for the blocks after it
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import onnx
import pytest

from orchestrator.cli.program import program
from tests.conftest import Project, orchestrate, tiny_onnx
from tests.docs.blocks import LANGUAGES, ROOT, Block, blocks, pages

EXEMPTIONS = {
    "needs a board": "none is on the desk of a machine that runs tests; tests/devices has an ssh server of its own",
    "installs, and takes four minutes; .ci/run does it": "the README's main job",
    "the tests themselves; .ci/run does it": "they would run themselves",
    "the tests run in an environment that is installed already; .ci/run does this first": "",
    "takes four minutes; .ci/run does it": "the README's main job",
    "takes four minutes; docs/start.md has a shorter one": "",
    "takes as long as its --timeout says": "half an hour",
    "fetches 200 MB; .ci/run does it": "simulated execution is set up there, and used",
    "changes the system; tests/study starts a database of its own": "",
    "serves until it is stopped; tests/study starts one": "",
    "serves until it is stopped; .ci/run builds the site": "",
    "serves until it is stopped; tests/cli starts one": "",
    "tests/docs/test_changes.py does it": "",
    "takes some minutes of a quiet machine, and a board": "tests/measuring characterizes with a small budget",
    "for zsh": "tests/cli/test_completion.py looks at the script",
    "for fish": "tests/cli/test_completion.py completes with it where fish is installed",
}
TYPED = re.compile(r"^(\$ )?(orchestrate|pip|python3?|mkdocs|towncrier|pytest) ", re.MULTILINE)
TIMEOUT_S = 300.0
PLUGIN_PAGES = "docs/plugins/"
"""Their Python is signatures and examples: tests/plugin/test_pages.py holds the ones to the code, registers the others, and
types the tutorial's commands (marked as sh) for a package that it writes with them."""


def runnable(page: str, *, slow: bool) -> list[Block]:
    """The blocks that are run; those that are saved as files stand among them."""
    languages = [name for name in LANGUAGES if name != "python" or not page.startswith(PLUGIN_PAGES)]
    found = [block for block in blocks(page) if block.language in languages and block.exempted is None]
    chosen = [block for block in found if block.file or block.slow == slow]
    return chosen if any(not block.file for block in chosen) or not slow else []


def with_blocks(*, slow: bool) -> list[str]:
    return [page for page in pages() if runnable(page, slow=slow)]


@pytest.fixture
def desk(project: Project, tmp_path: Path) -> Path:
    """A folder with the files that the pages speak of, beside a program that lets their searches measure briefly."""
    folder = tmp_path / "desk"
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(project.folder, folder / "my")
    (folder / "recommended").mkdir()
    kernels = {"recommended/model.onnx": 1, "old.onnx": 41}  # models of unlike speed are told apart in seconds
    for name in ("original.onnx", "model.onnx", "a.onnx", "b.onnx", "old.onnx", "new.onnx", "recommended/model.onnx"):
        onnx.save(tiny_onnx(kernel=kernels.get(name, 3)), folder / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "orchestrate").write_text(f'#!/bin/sh\nexec {shlex.join(orchestrate("search")[:-1])} "$@"\n')
    (tmp_path / "bin" / "orchestrate").chmod(0o755)
    shutil.copy(project.folder / "arrays.npz", folder)
    return folder


def run(block: Block, folder: Path) -> None:
    """Run a block as a person would."""
    if block.file is not None:
        (folder / block.file).write_text(block.text)
    python = [sys.executable, *(["-c", block.text] if block.file is None else [block.file])]
    command = python if block.language == "python" else ["bash", "-euo", "pipefail", "-c", block.text]
    short = [str(folder.parent / "bin")] if re.search(r"^orchestrate search ", block.text, re.MULTILINE) else []
    path = os.pathsep.join([*short, str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "COLUMNS": "120"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode in block.codes, f"{block} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", with_blocks(slow=False))
def test_what_a_page_tells_to_type_works(page: str, desk: Path) -> None:
    for block in runnable(page, slow=False):
        run(block, desk)


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks(slow=True))
def test_what_a_page_tells_to_type_works_where_it_takes_long(page: str, desk: Path) -> None:
    for block in runnable(page, slow=True):
        run(block, desk)


def test_every_exemption_has_a_known_reason_and_every_reason_is_needed() -> None:
    said = {block.exempted for page in pages() for block in blocks(page) if block.exempted is not None}
    assert said == set(EXEMPTIONS)


def test_no_command_escapes_by_the_way_it_is_written() -> None:
    unmarked = [str(block) for page in pages() for block in blocks(page) if not block.language and TYPED.search(block.text)]
    assert unmarked == [], "mark these blocks as bash, or as text where they show something else"
    others = {block.page for page in pages() for block in blocks(page) if block.language in ("sh", "shell", "console", "zsh")}
    assert others <= {f"{PLUGIN_PAGES}tutorial.md"}


INLINE = re.compile(r"`(orchestrate(?: [^`\n]+)?)`")


def spoken_of() -> list[tuple[str, str]]:
    """The commands in the middle of a page's sentences, and those of its blocks."""
    found = []
    for page in pages():
        text = (ROOT / page).read_text("utf-8")
        found += [(page, said) for said in INLINE.findall(text) if said != "orchestrate hello"]  # a plugin's own
        for block in blocks(page):
            if block.language in ("bash", "sh"):
                found += [(page, line) for line in block.text.splitlines() if line.startswith("orchestrate ")]
    return found


def test_commands_and_options_that_pages_speak_of_are_there() -> None:
    for page, said in spoken_of():
        command: click.Command | None = program
        for word in said.partition("#")[0].split()[1:]:
            if isinstance(command, click.Group) and word[0] not in "-.":
                found = [command.get_command(click.Context(command), name) for name in word.split("|")]
                assert all(found), f"{page}: {said}"
                command = found[0]
            elif word.startswith("--") and command is not None:
                options = {name for parameter in command.params for name in parameter.opts} | {"--help", "--version"}
                assert word.partition("=")[0].rstrip(".,;)]") in options, f"{page}: {said}"


def test_a_block_that_fails_is_noticed(desk: Path) -> None:
    with pytest.raises(AssertionError, match="page:7 ended with 2"):
        run(Block(page="page", line=7, language="bash", text="orchestrate serach\ntrue\n"), desk)
