"""Hooks of mkdocs: pages outside docs/, links that work on a code forge and in the site, the navigation of the methods."""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[1]
PAGES_ELSEWHERE = {
    "figures.md": "bench/RESULTS.md",
    "examples.md": "examples/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
LINK = re.compile(
    r"^```.*?^```"  # code stays as it is
    r"|(?<!!)\[(?P<text>[^\]\n]+)\]\((?P<path>[^()\s#]*)(?P<anchor>#[^()\s]*)?\)"
    r"|`[^`\n]+`",
    re.MULTILINE | re.DOTALL,
)
EVERYTHING = re.compile(r"^::: everything in ([\w.]+)$", re.MULTILINE)
FAMILY = re.compile(r"^## (\w+)$|\]\((methods/[\w-]+\.md)\)", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the methods to the navigation under their families, as docs/methods.md lists them."""
    families: dict[str, list[str]] = {}
    for family, page in FAMILY.findall((REPOSITORY / "docs" / "methods.md").read_text("utf-8")):
        if family:
            families[family] = under = []
        else:
            under.append(page)
    for section in config.nav or ():
        for items in section.values():
            if "methods.md" in items:
                items += [{family: pages} for family, pages in families.items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are outside docs/."""
    for place, source in PAGES_ELSEWHERE.items():
        files.append(File.generated(config, place, abs_src_path=str(REPOSITORY / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links of the repository as links of the site."""
    here = page.file.src_uri
    source = PAGES_ELSEWHERE.get(here, f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        path, anchor = link["path"], link["anchor"] or ""
        if not path or "://" in path or path.startswith("mailto:"):
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        place = _place(target, files) or _place(f"{target}/README.md", files)
        if place is not None:
            return f"[{link['text']}]({posixpath.relpath(place, posixpath.dirname(here) or '.')}{anchor})"
        if target.startswith("docs/") or not (REPOSITORY / target).exists():
            return link[0]  # mkdocs reports the broken link
        return link["text"] if link["text"].strip("`") == target else f"{link['text']} (`{target}`)"

    return EVERYTHING.sub(lambda found: _names(found[1]), LINK.sub(moved, markdown))


def _place(target: str, files: Files) -> str | None:
    """Return the page of a file of the repository, or None if it has none."""
    places = {source: place for place, source in PAGES_ELSEWHERE.items()}
    place = places.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
    return place if place is not None and files.get_file_from_path(place) is not None else None


def _names(package: str) -> str:
    """Return a mkdocstrings line for each name in a package's `__all__`."""
    text = (REPOSITORY / package.replace(".", "/") / "__init__.py").read_text("utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return "\n\n".join(f"::: {package}.{name}" for name in ast.literal_eval(node.value))
    raise ValueError(f"{package} has no __all__")
