"""What MkDocs adds to the pages: tables from the code, formulas, and pages that live elsewhere.

- `<!-- name arguments -->` with the name of a table in `site_tables.py` becomes that table.
- Formulas in TeX, `$..$` and `$$..$$`, become MathML, which browsers draw without a script, in a
  font that comes with the package ziamath: nothing is fetched from other hosts.
- The notebook is a page as well, and so are the texts in the repository's root. Links to those work
  in both places.
- The notebook clones from the repository's address, which `pyproject.toml` alone holds. `python
  docs/hooks.py` writes it into the notebook.
- A page that `mkdocs.yml` does not name is put under "More".
- The page that runs in the browser is put in as it was built; where it was not, it says so.
"""

from __future__ import annotations

import html
import importlib.resources
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import site_tables
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = "quickstart.ipynb"
CLONED = re.compile(r'(os\.environ\.get\(\\"BM_REPOSITORY\\", \\")[^"\\]*')  # as JSON has it
MATH_FONT = "stylesheets/STIXTwoMath-Regular.ttf"  # named in site.css
# Texts in the root, and what they are called in the site.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "THIRD_PARTY_NOTICES.md": "third_party_notices.md",
    "LICENSE": "LICENSE.txt",
}
DEMO = ROOT / "docs/demo"  # sources and packages of the page in the browser, and what is built
COLAB = "https://colab.research.google.com"
NOT_BUILT = (
    'document.getElementById("cover-text").textContent = "This copy of the site was made without '
    "the demo. The page 'Try it in the browser' says how to build it.\";\n"
)


def on_config(config: MkDocsConfig) -> None:
    """Name the repository, if it has an address; put pages that the navigation lacks at its end."""
    if address := repository():
        config.repo_url = address
    pages = own_pages(Path(config.docs_dir))
    named = set(_leaves(config.nav))
    if further := [page for page in pages if page not in named]:
        config.nav = [*(config.nav or []), {"More": further}]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebook as a page, the texts of the root, the formulas' font, and the demo."""
    page = notebook_page((Path(config.docs_dir) / NOTEBOOK).read_text(), repository())
    files.append(File.generated(config, NOTEBOOK.replace(".ipynb", ".md"), content=page))
    for name, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=here((ROOT / name).read_text())))
    font = importlib.resources.files("ziamath") / "fonts" / Path(MATH_FONT).name
    files.append(File.generated(config, MATH_FONT, content=font.read_bytes()))
    for name, content in demo_files().items():
        where = (
            {"abs_src_path": str(content)} if isinstance(content, Path) else {"content": content}
        )
        inside = InclusionLevel.INCLUDED  # mkdocs.yml leaves its folder out
        files.append(File.generated(config, f"demo/{name}", inclusion=inside, **where))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in tables, and turn links out of the folder into links to the site's own pages."""
    try:
        return site_tables.fill(there(markdown, page.file.src_uri.count("/")))
    except (KeyError, ValueError, OSError) as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML."""
    return re.sub(
        r'<(span|div) class="arithmatex">(\\[\[(])(.*?)\\[\])]</\1>',
        lambda found: _formula(found[3], "block" if found[1] == "div" else "inline"),
        content,
        flags=re.S,
    )


def own_pages(docs: Path) -> list[str]:
    """The pages in the folder, without those of packages that the demo is built with."""
    pages = (path.relative_to(docs) for path in docs.rglob("*.md"))
    return sorted(page.as_posix() for page in pages if page.parts[0] != DEMO.name)


def demo_files(demo: Path = DEMO) -> dict[str, Path | str]:
    """Files of the page in the browser by their names, or texts that stand in for them.

    Without scripts or data in `dist/` it is a page that says that it was not built.
    """
    built = demo / "dist"
    if (built / "main.js").is_file() and (built / "data/settings.json").is_file():
        paths = (path for path in sorted(built.rglob("*")) if path.is_file())
        return {path.relative_to(built).as_posix(): path for path in paths}
    beside = {name: demo / "src" / name for name in ("style.css", "notices.txt")}
    return {"index.html": demo / "index.html", **beside, "main.js": NOT_BUILT}


def repository() -> str:
    """The repository's address, empty where it has none; `pyproject.toml` holds it."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return told["tool"]["bm-envs"]["repository"].rstrip("/")


def colab(address: str) -> str:
    """What opens the notebook in Colab; empty unless the repository is on GitHub."""
    owner_and_name = address.removeprefix("https://github.com/")
    if owner_and_name == address:
        return ""
    return f"{COLAB}/github/{owner_and_name}/blob/main/docs/{NOTEBOOK}"


def clones_from(text: str, address: str) -> str:
    """The notebook's text, which clones from this address where it finds no clone."""
    text, count = CLONED.subn(rf"\g<1>{address}", text)
    if count != 1:
        raise ValueError(f"{NOTEBOOK} has {count} places for the repository's address, not 1")
    return text


def notebook_page(text: str, address: str) -> str:
    """A notebook as Markdown: its texts as they are, its code in fences, no outputs."""
    badges = [f'<a class="md-button" href="{NOTEBOOK}" download>Download the notebook</a>']
    if link := colab(address):
        badges.insert(0, f'<a class="md-button" href="{link}">Open it in Colab</a>')
    how = f"This page is a notebook. In a clone: `jupyter lab docs/{NOTEBOOK}`."
    parts = [f"{how}\n\n{' '.join(badges)}"]
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    parts[:2] = parts[1::-1]  # the title stands first
    return "\n\n".join(parts) + "\n"


def here(markdown: str) -> str:
    """A text of the root as a page: links into `docs/`, and to other texts of the root."""
    markdown = re.sub(r"\]\(docs/", "](", markdown)
    for name, page in ELSEWHERE.items():
        markdown = markdown.replace(f"]({name})", f"]({page})")
    return markdown


def there(markdown: str, depth: int = 0) -> str:
    """A page `depth` folders below `docs/`, whose links to texts of the root become the site's."""
    for name, page in ELSEWHERE.items():
        up = "../" * depth
        markdown = markdown.replace(f"]({up}../{name}", f"]({up}{page}")
    return markdown


def _formula(tex: str, display: str) -> str:
    return convert(html.unescape(tex.strip()), display=display)


def _leaves(nav: Any) -> list[str]:
    """Pages of a navigation."""
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav or []
    return [leaf for item in items for leaf in _leaves(item)]


if __name__ == "__main__":
    path = ROOT / "docs" / NOTEBOOK
    path.write_text(clones_from(path.read_text(), repository()))
