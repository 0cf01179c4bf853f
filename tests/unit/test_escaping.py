"""Text that is shown cannot act on what shows it."""

import json

import pytest

from telemetry.escaping import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07\r", r"\u001b[2J\u0007\r"),  # C0
        ("\x7f\x9b2J\x85", r"\u007f\u009b2J\u0085"),  # DEL and C1
        ("\u202egpj\u2066\u2069", r"\u202egpj\u2066\u2069"),  # bidirectional overrides and isolates
        ("\ud800", r"\ud800"),
        ("two\n\tlines", "two\n\tlines"),
        ("Żółć, שלום, نص, 中文\u3000全, 👩\u200d🚀, a\u00a0b", "Żółć, שלום, نص, 中文\u3000全, 👩\u200d🚀, a\u00a0b"),
    ],
)
def test_only_what_acts_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_json_still_means_the_same() -> None:
    told = {"\x9b": ["\u202e", "\\\x7f", "\x1b"]}
    escaped = visible(json.dumps(told, ensure_ascii=False))
    assert escaped.isascii()
    assert json.loads(escaped) == told
