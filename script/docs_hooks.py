"""What mkdocs does not do by itself: pages and files from outside docs/, lists and tables as GitHub reads them, and
Mermaid from the site instead of a CDN. mkdocs.yml names this file; mkdocs calls its functions.
"""

import posixpath
import re
from pathlib import Path
from typing import NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "deploy/README.md": "deploying.md",
    "onesource_client/README.md": "client.md",
}
"""Where pages from outside docs/ are in the site."""
SOURCES = {uri: path for path, uri in PAGES.items()}
MERMAID = "javascripts/mermaid.min.js"
LINK = re.compile(r'(?<=\]\()[^)\s#]+|(?<=\bsrc=")[^"#]+')
ITEM = re.compile(r"([-*]|\d+\.) +")
CODE = re.compile(r"`[^`]+`")
FENCE = re.compile(r"`{3,}")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, and each file of the repository that a page links to."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text()))
    for page in files.documentation_pages():
        for link in LINK.findall(page.content_string):
            path = _linked(page, link)
            if path and not files.get_file_from_path(_uri(path)):
                files.append(File.generated(config, _uri(path), abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, MERMAID, abs_src_path=str(ROOT / ".venv-docs" / "mermaid.min.js")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page's text with links that hold in the site."""
    here = posixpath.dirname(page.file.src_uri) or "."

    def there(link: re.Match[str]) -> str:
        path = _linked(page.file, link[0])
        return posixpath.relpath(_uri(path), here) if path else link[0]

    return as_github_reads_it(LINK.sub(there, markdown))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load Mermaid on the pages with a diagram, ahead of the theme, which fetches it elsewhere where it is missing."""
    if 'class="mermaid"' not in output:
        return output
    script = f'<script src="{get_relative_url(MERMAID, page.url)}"></script>'
    return output.replace("</head>", f"{script}</head>", 1)


def _linked(page: File, link: str) -> str:
    """Return the file of the repository that the link leads to, "" where it is none."""
    source = SOURCES.get(page.src_uri, f"docs/{page.src_uri}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    return path if (ROOT / path).is_file() else ""


def _uri(path: str) -> str:
    """Return where the site has this file of the repository."""
    return PAGES.get(path, path.removeprefix("docs/"))


class _Item(NamedTuple):
    """An item of a list: the columns of its mark and of its text."""

    mark: int
    text: int


def as_github_reads_it(markdown: str) -> str:
    """Return the text in the form that Python-Markdown reads as GitHub reads this one: with a blank line before each
    list, four spaces before what belongs to an item, and `|` in the code of a table's cell without a backslash."""
    lines: list[str] = []
    within: list[_Item] = []
    fence = ""
    for line in markdown.splitlines():
        text = line.lstrip()
        column = len(line) - len(text)
        mark = None if fence else ITEM.match(text)
        before = within[-1].mark if within else None
        while text and not fence and within and column < within[-1].text:
            before = within.pop().mark
        if mark and not within and before != column and lines and lines[-1]:
            lines.append("")
        if text.startswith("|") and not fence:
            line = CODE.sub(lambda code: code[0].replace(r"\|", "|"), line)
        lines.append(f"{'    ' * len(within)}{line[within[-1].text if within else 0 :]}".rstrip())
        if mark:
            within.append(_Item(column, column + len(mark[0])))
        elif fence:
            fence = "" if text == fence else fence
        elif opened := FENCE.match(text):
            fence = opened[0]
    return "\n".join(lines)
