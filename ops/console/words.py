"""What somebody wrote, as HTML that is safe to show."""

import nh3
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

_LONGEST = 50_000  # characters that are read as Markdown, in half a second; longer text is shown as it is

# Pictures would be fetched from where the text says, which tells that somebody reads it.
_markdown = (
    MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"]).disable("image")
)
_TAGS = {
    *("a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre"),
    *("s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}


def rendered(text: str) -> SafeString:
    """Return Markdown as HTML with no scripts, styles, pictures or forms in it: cleaned by nh3 after it was rendered
    without HTML of its own."""
    if len(text) > _LONGEST:
        return format_html("<pre>{}</pre>", text)
    clean = nh3.clean(
        _markdown.render(text),
        tags=_TAGS,
        attributes={"a": {"href", "title"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )
    return mark_safe(clean)  # noqa: S308  (cleaned above)
