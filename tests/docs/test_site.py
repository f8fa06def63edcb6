"""The site's hook: links hold in the repository and in the site. `.ci/run` builds the whole site, strictly."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.docs.blocks import ROOT

pytest.importorskip("mkdocs", reason="the extra [docs] is not installed")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/site_hooks.py."""
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def moved(hooks: ModuleType, here: str, markdown: str) -> str:
    known = {"README.md", "methods.md", "store.md", "figures.md", "methods/sparsity.md", "api/python.md"}
    files = SimpleNamespace(get_file_from_path=lambda path: path if path in known else None)
    text: str = hooks.on_page_markdown(markdown, SimpleNamespace(file=SimpleNamespace(src_uri=here)), None, files)
    return text


@pytest.mark.parametrize(
    ("here", "link", "becomes"),
    [
        ("README.md", "[f](../bench/RESULTS.md#start-up)", "[f](figures.md#start-up)"),
        ("methods/sparsity.md", "[all](../methods.md)", "[all](../methods.md)"),
        ("figures.md", "[store](../docs/store.md)", "[store](store.md)"),
        ("api/python.md", "[f](../../bench/RESULTS.md)", "[f](../figures.md)"),
        ("store.md", "[`examples/own_network`](../examples/own_network)", "`examples/own_network`"),
        ("store.md", "[the script](../bench/timing.py)", "the script (`bench/timing.py`)"),
        ("store.md", "[gone](../bench/gone.py)", "[gone](../bench/gone.py)"),
        (
            "store.md",
            "[web](https://a.org/b.md) ![image](../docs/report.png)",
            "[web](https://a.org/b.md) ![image](../docs/report.png)",
        ),
        ("store.md", "`[x](../bench/RESULTS.md)`", "`[x](../bench/RESULTS.md)`"),
        ("store.md", "```\n[x](../bench/RESULTS.md)\n```", "```\n[x](../bench/RESULTS.md)\n```"),
    ],
)
def test_links_hold_in_the_site(hooks: ModuleType, here: str, link: str, becomes: str) -> None:
    assert moved(hooks, here, link) == becomes


def test_reference_has_every_public_name(hooks: ModuleType) -> None:
    import orchestrator

    text = moved(hooks, "api/python.md", Path(ROOT / "docs" / "api" / "python.md").read_text("utf-8"))
    assert [
        line.removeprefix("::: orchestrator.") for line in text.splitlines() if line.startswith(":::")
    ] == orchestrator.__all__
