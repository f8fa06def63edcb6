"""docs/plugins says what the code says; `pytest -n0 tests/plugin/test_pages.py --golden` writes docs/plugins/module.md anew."""

import ast
import dataclasses
import inspect
import os
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest

import orchestrator.plugin
from orchestrator.plugin import hookspecs, processes
from orchestrator.plugin.package_check import install
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.testing import __all__ as kit
from tests.conftest import Cli, Project

DOCS = Path(__file__).parents[2] / "docs"
PAGES = DOCS / "plugins"
HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("orchestrator_"))
HEAD = """# The plugin-facing module

`orchestrator.plugin` is all that a plugin needs of the orchestrator, and all that it may import. Its modules `channel_groups`,
`losses`, `masks` and `networks` load torch: import them where you use them. `orchestrator.plugin.processes` is for
[devices](processes.md), `orchestrator.plugin.testing` for [tests](testing.md). This page is written from the code, and a test
holds it to that.
"""

PROCESSES_HEAD = """# Processes for devices

`orchestrator.plugin.processes` is for device plugins: guarded child processes, a session with the agent that runs
a model, and the user's interrupt. This page is written from the code, and a test holds it to that.
"""
MODULES = {"module": (orchestrator.plugin, HEAD), "processes": (processes, PROCESSES_HEAD)}


def node_of(item: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(item))).body[0]


def signature(node: ast.FunctionDef) -> str:
    return f"def {node.name}({ast.unparse(node.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def block(name: str, item: Any) -> list[str]:
    """The code of a name as its page has it: bases, fields with defaults, public methods, without bodies."""
    if inspect.isfunction(item):
        return [signature(node_of(item))]
    if not inspect.isclass(item):
        return [f"{name} = {item!r}".replace("<class '", "").replace("'>", "")]
    node = node_of(item)
    bases = ", ".join([*map(ast.unparse, node.bases)])
    lines = [f"class {name}({bases})" if bases else f"class {name}"]
    for part in node.body:
        if isinstance(part, ast.AnnAssign) or (isinstance(part, ast.Assign) and not ast.unparse(part).startswith("_")):
            lines.append(f"    {ast.unparse(part)}")
        elif (isinstance(part, ast.FunctionDef) and (not part.name.startswith("_") or part.name == "__call__")) or (
            isinstance(part, ast.FunctionDef) and part.name == "__init__" and not dataclasses.is_dataclass(item)
        ):
            lines.append(f"    {signature(part)}")
    return lines


def page(module: types.ModuleType, head: str) -> str:
    text = [head]
    for name in module.__all__:
        item = getattr(module, name)
        plain = isinstance(item, types.UnionType) or not (inspect.isclass(item) or inspect.isfunction(item))
        said = "" if plain else (inspect.getdoc(item) or "").partition("\n\n")[0].replace("\n", " ")
        code = "\n".join([f"{name} = {item}" if isinstance(item, types.UnionType) else ""] if plain else block(name, item))
        text.append(f"## `{name}`\n")
        if said:
            text.append(f"{said}\n")
        if code:
            text.append(f"```python\n{code}\n```\n")
    return "\n".join(text)


@pytest.mark.parametrize("name", MODULES)
def test_page_of_a_module_says_what_the_code_says(name: str, request: pytest.FixtureRequest) -> None:
    path, text = PAGES / f"{name}.md", page(*MODULES[name])
    if request.config.getoption("--golden"):
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize("hook", HOOKS)
def test_page_of_a_hook_has_its_exact_signature(hook: str) -> None:
    text = (PAGES / f"{hook}.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    spec = getattr(hookspecs, hook)
    assert blocks[0] == signature(node_of(spec)) + "\n"
    documented = ast.parse(blocks[0].rstrip() + ":\n    ...").body[0]
    assert isinstance(documented, ast.FunctionDef)
    assert [a.arg for a in documented.args.args] == list(inspect.signature(spec).parameters)
    for heading in ("**Kind**", "**When**", "**Returns**", "**May raise**"):
        assert heading in text


@pytest.mark.parametrize("hook", HOOKS)
def test_example_of_a_hook_can_be_registered(hook: str, tmp_path: Path) -> None:
    (tmp_path / "nightly.toml").touch()  # what the examples of searches and of profiles find beside themselves
    example = re.findall(r"```python\n(.*?)```", (PAGES / f"{hook}.md").read_text("utf-8"), re.DOTALL)[1]
    module = types.ModuleType("example")
    module.__file__ = str(tmp_path / "example.py")
    exec(compile(example, f"{hook}.md", "exec"), vars(module))
    registry = Registry()
    registry.register(module, "example")
    assert not registry.failed
    assert hook.removeprefix("orchestrator_") in registry.brought()["example"] or hook in registry.hooks("example")


def test_every_hook_is_linked_and_no_page_is_of_a_hook_that_is_gone() -> None:
    index = (DOCS / "plugins.md").read_text("utf-8")
    for hook in HOOKS:
        assert f"(plugins/{hook}.md)" in index
    assert {path.stem for path in PAGES.glob("orchestrator_*.md")} == set(HOOKS)
    for other in (*MODULES, "testing", "tutorial"):
        assert f"(plugins/{other}.md)" in index


def test_every_name_of_the_kit_is_documented() -> None:
    text = (PAGES / "testing.md").read_text("utf-8")
    assert [name for name in kit if f"`{name}`" not in text] == []


@pytest.mark.slow
def test_tutorial_ends_with_a_package_that_works(cli: Cli, project: Project) -> None:
    text = (PAGES / "tutorial.md").read_text("utf-8")
    task = ["--model", project.ref("model:net"), "--data", project.ref("data:splits")]
    ran = []
    for found in re.finditer(r"`([\w./-]+\.py)` becomes:\n\n```python\n(.*?)```|```sh\n(.*?)```", text, re.DOTALL):
        file, content, commands = found.groups()
        if file:
            (cli.folder / file).write_text(content)
            continue
        for line in commands.splitlines():
            program, *arguments = line.split()
            if program == "pip":  # into a folder of this test, as pip would into the environment
                install(cli.folder / arguments[-1], cli.packages)
            else:
                assert program == "orchestrate"
                done = cli(*arguments, *(task if arguments[0] == "search" else []), timeout=900)
                assert done.returncode == 0, done.stdout + done.stderr
            ran.append(line)
    assert len(ran) == 5
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "clip-weights"],
        cwd=cli.folder,
        env={**os.environ, "PYTHONPATH": str(cli.packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
