"""How sessions and their keys are made and parsed."""

import pytest

from conversations.errors import InvalidSession
from conversations.stores.sessions import (
    id_of,
    is_key,
    is_of,
    make_key,
    part_of_name,
    session_named,
    session_of,
    tenant_of,
)


@pytest.mark.parametrize(
    ("session_id", "tenant", "session", "key"),
    [("s-1", "", "s-1", "conv:s-1"), ("s-1", "acme", "acme:s-1", "conv:acme:s-1")],
)
def test_a_session_and_its_key_can_be_parsed(session_id: str, tenant: str, session: str, key: str) -> None:
    assert session_named(session_id, tenant) == session
    assert (tenant_of(session), id_of(session)) == (tenant, session_id)
    assert make_key(session) == key
    assert session_of(key) == session
    assert is_key(key)


def test_whose_a_session_is() -> None:
    assert [is_of("acme:s", tenant) for tenant in ("acme", None, "", "acm")] == [True, True, False, False]
    assert [is_of("s", tenant) for tenant in ("", "acme")] == [True, False]


@pytest.mark.parametrize("key", ["conv:", "conv:a b", "conv:a:b:c", "other:a", "conv", "conv:a\n", ""])
def test_what_another_program_wrote_is_no_key(key: str) -> None:
    assert not is_key(key)


@pytest.mark.parametrize("session", ["", "a\n", "a:b:c", "*"])
def test_what_is_no_session_has_no_key(session: str) -> None:
    with pytest.raises(InvalidSession):
        make_key(session)


def test_a_part_of_a_name_may_begin_or_end_between_tenant_and_id() -> None:
    assert [part_of_name(text) for text in ("", "a", "acme:", ":s", "e:s", ":")] == ["", "a", "acme:", ":s", "e:s", ":"]
    for text in ("*", "a b", "a:b:c"):
        with pytest.raises(InvalidSession):
            part_of_name(text)
