"""Escapes for characters that control a terminal or the order of text."""

import json
import re

# Control characters except newline and tab, bidirectional embeddings, overrides and isolates, and surrogates, which no
# output can encode.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return the text with such characters as JSON escapes; JSON keeps its value."""
    return text if text.isprintable() else _CONTROL.sub(lambda found: json.dumps(found[0])[1:-1], text)
