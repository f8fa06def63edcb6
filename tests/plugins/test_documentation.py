"""docs/methods.md and docs/methods/ say what the declarations say.

`pytest -n0 tests/plugins/test_documentation.py --golden` writes them anew.
"""

import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plugin import Choice, Method, Need, Number, OnnxMethod, TorchMethod
from orchestrator.plugin.registry import Registry

DOCS = Path(__file__).parents[2] / "docs"
ORDER = ("morphology", "pruning", "distillation", "graph", "quantization")
CITATION = re.compile(r"([A-Z][\w-]+(?: and [A-Z][\w-]+| et\s+al\.)?)\s+((?:19|20)\d\d)")
HEAD = """# The methods

The families of methods in the order of a recipe, which has at most one method of each. If there are train data, a method that
changes the structure is followed by distillation. Each method declares its parameters, their defaults and search ranges in one
place, and these pages are generated from the declarations. A search narrows the ranges to those that the target supports and the
network offers (`--dry-run` shows them, and the reason for each refused method). Methods marked *rare* are included in searches
that name them (`--method NAME`) or include all methods (`--search thorough`).
"""


def ours() -> list[Method]:
    methods = Registry.discover().methods().values()
    found = [m for m in methods if type(m).__module__.startswith("orchestrator_") and m.family in ORDER]
    return sorted(found, key=lambda m: (ORDER.index(m.family), not m.usual, m.name))


def values(parameter: Any) -> str:
    if isinstance(parameter, Choice):
        return ", ".join(f"**{c}**" if c == parameter.start else str(c) for c in parameter.choices)
    assert isinstance(parameter, Number)
    return f"{parameter.low:g} to {parameter.high:g} by {parameter.step:g}, **{parameter.start:g}**"


def families(names: frozenset[str]) -> str:
    return ", ".join(family for family in ORDER if family in names)


def facts(method: Method) -> Iterator[tuple[str, str]]:
    yield "family", f"{method.family} (one of a family stands in a recipe)"
    takes = "ONNX file" if isinstance(method, OnnxMethod) else "torch module"
    gives = "torch module" if isinstance(method, TorchMethod) else "ONNX file"
    yield "works on", takes if takes == gives else f"{takes}, gives an {gives}"
    words = {Need.TRAIN: "a train split", Need.CALIBRATION: "calibration data", Need.LABELS: "labels"}
    if method.needs:
        yield "needs", " and ".join(text for need, text in words.items() if need in method.needs)
    for label, names in (("follows on", method.requires), ("stands after", method.after), ("stands before", method.before)):
        if names:
            yield label, families(names) + (" (one of them at least)" if label == "follows on" else "")
    yield "takes part", "in every search" if method.usual else "*rare*: where a search names it, or all methods"
    yield "version", str(method.version)


def papers(method: Method) -> dict[str, str]:
    """The references that a method's own words cite, in their order."""
    known = tomllib.loads((DOCS / "papers.toml").read_text("utf-8"))
    module = sys.modules[type(method).__module__].__doc__ or ""
    words = " ".join([method.summary, module, inspect.getdoc(type(method)) or "", *(p.help for p in method.parameters)])
    cited = [f"{' '.join(authors.split())} {year}" for authors, year in CITATION.findall(words)]
    return {name: known[name] for name in dict.fromkeys(cited)}


def page(method: Method) -> str:
    lines = [f"# `{method.name}`\n", f"{method.summary}\n", "| | |\n|---|---|"]
    lines += [f"| {label} | {text} |" for label, text in facts(method)]
    description = inspect.getdoc(type(method)) or ""
    lines += ["", f"{description}\n"]
    if method.parameters:
        lines.append("## Parameters\n\n| parameter | values, **default** | meaning |\n|---|---|---|")
        lines += [f"| `{p.name}` | {values(p)} | {p.help} |" for p in method.parameters]
        lines.append("")
    if cited := papers(method):
        lines.append("## Papers\n")
        lines += [f"- {name}: {reference}" for name, reference in cited.items()]
        lines.append("")
    lines.append("[All methods](../methods.md)\n")
    return "\n".join(lines)


def index() -> str:
    lines = [HEAD]
    for family in ORDER:
        lines.append(f"## {family.capitalize()}\n\n| method | |\n|---|---|")
        for method in (m for m in ours() if m.family == family):
            lines.append(
                f"| [`{method.name}`](methods/{method.name}.md) | {method.summary}{'' if method.usual else ' *Rare.*'} |"
            )
        lines.append("")
    return "\n".join(lines)


def test_pages_of_methods_say_what_the_declarations_say(request: pytest.FixtureRequest) -> None:
    pages = {DOCS / "methods.md": index()} | {DOCS / "methods" / f"{method.name}.md": page(method) for method in ours()}
    if request.config.getoption("--golden"):
        (DOCS / "methods").mkdir(exist_ok=True)
        for path, text in pages.items():
            path.write_text(text, "utf-8")
    assert {path: path.read_text("utf-8") for path in (DOCS / "methods.md", *sorted((DOCS / "methods").iterdir()))} == pages


def test_every_reference_of_the_bibliography_is_cited_by_a_method() -> None:
    cited = {name for method in ours() for name in papers(method)}
    assert cited == set(tomllib.loads((DOCS / "papers.toml").read_text("utf-8")))
