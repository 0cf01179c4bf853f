"""How Redis' Lua scripts are assembled; tests/contract runs them."""

import pytest

from conversations.stores.redis import scripts


def test_an_include_line_stands_for_the_text_of_its_file() -> None:
    included = (scripts._FOLDER / "include" / "turns.lua").read_text()
    assert included in scripts.source("trim")
    assert included in scripts.source("delete")


@pytest.mark.parametrize("name", sorted(scripts.NAMES))
def test_no_script_has_an_include_line_left(name: str) -> None:
    assert "-- include" not in scripts.source(name)


def test_a_script_is_assembled_once() -> None:
    assert scripts.source("append") is scripts.source("append")
