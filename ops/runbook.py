"""docs/RUNBOOK.md as a page of the admin, so that what to do stands one link away from what is wrong."""

import re
from functools import cache

from django.conf import settings
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

_markdown = MarkdownIt("commonmark", {"html": False}).enable("table")


@cache
def as_html() -> SafeString:
    """Return it with an id for each heading, as other readers of Markdown make it, and without links to documents that
    are not here. Raise OSError where the file is no part of this installation."""
    tokens = _markdown.parse((settings.BASE_DIR / "docs" / "RUNBOOK.md").read_text())
    above = 0
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            above = min(int(token.tag[1:]), above + 1)  # the older runbook leaves out a level here and there
            token.attrSet("id", section(tokens[number + 1].content))
            token.tag = tokens[number + 2].tag = f"h{above}"
    _unlink(tokens)
    html = str(_markdown.renderer.render(tokens, _markdown.options, {}))
    # A block that scrolls has to be reached with the keyboard, and a head without words is none.
    html = re.sub("<(pre|table)>", r'<\1 tabindex="0">', html).replace("<th></th>", "<td></td>")
    return mark_safe(html)  # noqa: S308  (our own file, without HTML of its own)


def section(heading: str) -> str:
    """Return the id of the section with this heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _unlink(tokens: list[Token]) -> None:
    for token in tokens:
        _unlink(token.children or [])
        if token.type == "link_open" and not re.match("#|https?:", str(token.attrGet("href"))):
            del token.attrs["href"]
