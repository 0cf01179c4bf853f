"""Making characters visible that would otherwise act: on a terminal, or on the order in which text is read."""

import json
import re

# Control characters but newline and tab, bidirectional embeddings, overrides and isolates, and surrogates, which no
# output can encode.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return the text with such characters as JSON escapes; what was JSON still means the same."""
    return _ACTING.sub(lambda found: json.dumps(found[0])[1:-1], text)
