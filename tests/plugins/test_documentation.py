"""docs/methods.md says what the declarations say; `pytest -n0 tests/plugins/test_documentation.py --golden` writes it anew."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.plugin import Choice, Method, Need, Number, OnnxMethod, TorchMethod
from orchestrator.plugin.registry import Registry

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
ORDER = ("morphology", "pruning", "distillation", "graph", "quantization")
OURS = {f"orchestrator_{name}" for name in ("distillation", "graph", "morphology", "pruning", "quantization")}
HEAD = """# The methods

What can stand in a recipe, in this order, one of a family at most. A structure that is changed is followed by distillation
wherever there are train data. Each method declares its parameters, their defaults and search ranges in one place; this page is
written from the declarations. A search narrows them to what the target runs and the network has (`--dry-run` shows to what, and
which method is refused and why). Methods marked *rare* take part where a search names them (`--method NAME`) or all
(`--search thorough`).
"""


def kind(method: Method) -> str:
    takes = "file" if isinstance(method, OnnxMethod) else "module"
    gives = "module" if isinstance(method, TorchMethod) else "file"
    needs = [word for need, word in ((Need.TRAIN, "train data"), (Need.CALIBRATION, "calibration data")) if need in method.needs]
    return f"{takes} to {gives}" + (f"; needs {' and '.join(needs)}" if needs else "") + ("" if method.usual else "; *rare*")


def values(parameter: Any) -> str:
    if isinstance(parameter, Choice):
        return ", ".join(f"**{c}**" if c == parameter.start else str(c) for c in parameter.choices)
    assert isinstance(parameter, Number)
    return f"{parameter.low:g} to {parameter.high:g} by {parameter.step:g}, **{parameter.start:g}**"


def page() -> str:
    methods = [
        m for m in Registry.discover().methods().values() if type(m).__module__.startswith("orchestrator_") and m.family in ORDER
    ]
    lines = [HEAD]
    for family in ORDER:
        lines.append(f"## {family.capitalize()}\n")
        for method in sorted((m for m in methods if m.family == family), key=lambda m: (not m.usual, m.name)):
            lines.append(f"### `{method.name}`\n\n{method.summary} ({kind(method)})\n")
            if method.parameters:
                lines.append("| parameter | values, **default** | meaning |\n|---|---|---|")
                lines += [f"| `{p.name}` | {values(p)} | {p.help} |" for p in method.parameters]
                lines.append("")
    return "\n".join(lines)


def test_page_of_methods_says_what_the_declarations_say(request: pytest.FixtureRequest) -> None:
    text = page()
    if request.config.getoption("--golden"):
        PAGE.write_text(text, "utf-8")
    assert PAGE.read_text("utf-8") == text
