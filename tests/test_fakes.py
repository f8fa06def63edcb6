"""No test replaces a name of the product without a check that the name exists."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.study import importance
from tests import launcher
from tests.patching import CheckedMonkeyPatch

FOLDER = Path(__file__).parent


def imported_names(tree: ast.AST) -> set[str]:
    """Return the names that import statements bind, and that may be modules."""
    aliases = (alias for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names)
    return {name for alias in aliases if (name := alias.asname or alias.name.partition(".")[0]).islower()}


def assigned(node: ast.AST) -> list[ast.expr]:
    """Return what a statement assigns to."""
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []


def unchecked_replacements(source: str) -> Iterator[int]:
    """Yield the lines that set attributes of imported modules where a name that does not exist is created silently."""
    tree = ast.parse(source)
    modules = imported_names(tree)
    for node in ast.walk(tree):
        for target in assigned(node):
            owner = ast.unparse(target.value) if isinstance(target, ast.Attribute) else ""
            if owner in modules or owner.startswith("sys.modules["):
                yield node.lineno
        replaces = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "patch", "patch.object"))
        if replaces and {"raising=False", "create=True"} & {ast.unparse(keyword) for keyword in node.keywords}:
            yield node.lineno


def test_names_are_replaced_with_a_check_only() -> None:
    found = {path.relative_to(FOLDER): list(unchecked_replacements(path.read_text("utf-8"))) for path in FOLDER.rglob("*.py")}
    assert {str(path): lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from orchestrator.measuring import scoring\nscoring.SEARCH = 1",
        "import sys\nsys.modules['orchestrator.study'].PAUSE_S = 1",
        "import orchestrator.study as study\nstudy.PAUSE_S += 1",
        "def test(monkeypatch):\n    monkeypatch.setattr('a.b', 1, raising=False)",
    ],
)
def test_replacement_is_found_when_nothing_checks_it(source: str) -> None:
    assert list(unchecked_replacements(source)) == [2]


def test_launcher_refuses_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="NO_SUCH_NAME"):
        launcher.replace_values({"orchestrator.measuring.scoring:NO_SUCH_NAME": 1})
    with pytest.raises(TypeError, match="no_such_field"):
        launcher.replace_values({"orchestrator.measuring.scoring:OBJECTIVE": {"no_such_field": 1}})
    with pytest.raises(TypeError, match="cannot become"):
        launcher.replace_values({"orchestrator.measuring.scoring:TOGETHER_S": "long"})


def test_fake_is_reported_when_nothing_calls_it() -> None:
    patch = CheckedMonkeyPatch()
    patch.setattr(importance, "importance", lambda: 1)
    with patch.context() as nested:
        nested.setattr("orchestrator.study.importance.SHUFFLES", 1)
        nested.setattr("orchestrator.study.importance._trials", lambda: 2)
        assert importance._trials() == 2
    assert patch.uncalled() == {"orchestrator.study.importance.importance"}
    importance.importance()
    assert not patch.uncalled()
    patch.undo()
