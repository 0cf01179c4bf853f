"""The metrics that a PromQL expression asks for, read from its text."""

import re

_WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool"}
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?")
_EQUAL = re.compile(r'(\w+)\s*=\s*"([^"]*)"')


def selectors(expression: str) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Return each metric with the labels that it must equal."""
    text = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", expression)
    text = re.sub(r"\[[^\]]*\]", " ", text)  # ranges
    found = set()
    for match in _SELECTOR.finditer(text):
        name, labels = match.groups()
        before, after = text[: match.start()], text[match.end() :].lstrip()
        inside_a_name = before[-1:].isalnum() or before[-1:] == "."
        if not (inside_a_name or name in _WORDS or after.startswith("(")):
            found.add((name, frozenset(_EQUAL.findall(labels or ""))))
    return found
