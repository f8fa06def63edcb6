"""News fragments: towncrier makes the next version's notes of all of them."""

import re
import subprocess
import sys

import pytest

from tests.docs.blocks import ROOT

KINDS = ("added", "changed", "fixed", "removed")
FRAGMENTS = sorted(path for path in (ROOT / "changes").glob("*") if path.name != "README.md")


def test_every_fragment_stands_in_the_draft_of_the_next_version() -> None:
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "next", "--date", "2000-01-01"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    notes = " ".join(done.stdout.split())
    assert "## next (2000-01-01)" in notes
    for path in FRAGMENTS:
        assert " ".join(path.read_text("utf-8").split()) in notes, path.name


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_fragments_are_named_by_their_kind(path: object) -> None:
    assert re.fullmatch(rf"\+[\w-]+\.({'|'.join(KINDS)})\.md", getattr(path, "name", ""))
