"""Printed text cannot control the terminal."""

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
def test_only_control_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_escaped_json_has_the_same_value() -> None:
    value = {"\x9b": ["\u202e", "\\\x7f", "\x1b"]}
    escaped = visible(json.dumps(value, ensure_ascii=False))
    assert escaped.isascii()
    assert json.loads(escaped) == value
