"""The audit log of operators' actions."""

import pytest

from ops import audit
from ops.models import AuditEntry
from tests.builders import a_session

NAME = "n" * 150  # the longest that the admin takes


@pytest.mark.parametrize(("who", "kept"), [(f"{NAME} in the admin", f"{NAME} in the admin"), ("n" * 400, "n" * 255)])
def test_whoever_it_was_the_entry_is_one_that_every_database_takes(who: str, kept: str) -> None:
    """PostgreSQL refuses a text that is longer than its column; SQLite does not."""
    reason = a_session()
    assert audit.record("switch", "done", who=who, reason=reason)
    entry = AuditEntry.objects.get(reason=reason)
    entry.clean_fields(exclude=("before", "after"))  # no change is an empty one
    assert entry.who == kept
