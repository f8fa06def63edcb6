"""The blocks of code of a Markdown page, and what the comments before them say of how they are run."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = ("bash", "python")
COMMENT = re.compile(r"<!-- (?P<what>not run|saved as|ends with|slow)(?:[: ]+(?P<said>.*?))? -->")
FENCE = re.compile(
    r"(?P<comments>(?:^<!-- [^\n]* -->\n)*)^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^ *```$", re.M | re.S
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block.

    Attributes:
        page: Relative to the repository.
        exempted: Why it is not run; None: it is.
        file: The name under which a block of Python is saved, for the blocks after it.
        codes: Exit codes that are as they should be.
    """

    page: str
    line: int
    language: str
    text: str
    exempted: str | None = None
    file: str | None = None
    codes: tuple[int, ...] = (0,)
    slow: bool = False

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return README.md, CONTRIBUTING.md, the documentation and the examples' pages, relative to the repository."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    text = (ROOT / page).read_text("utf-8")
    found = []
    for fence in FENCE.finditer(text):
        said = {comment["what"]: comment["said"] or "" for comment in COMMENT.finditer(fence["comments"])}
        indent = len(fence["indent"])
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, fence.start("text")),
                language=fence["language"],
                text="".join(line[indent:] for line in fence["text"].splitlines(keepends=True)),
                exempted=said.get("not run"),
                file=said.get("saved as"),
                codes=tuple(int(code) for code in re.findall(r"\d+", said.get("ends with", "0"))),
                slow="slow" in said,
            )
        )
    return found
