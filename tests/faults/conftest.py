"""The order of the rows: those that share a stack beside each other, since a stack takes seconds to start."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the rows by their stacks. Their order is random otherwise; all other tests stay where they are."""
    places = [place for place, item in enumerate(items) if "setup" in _parameters(item)]
    rows = sorted((items[place] for place in places), key=lambda item: repr(_parameters(item)["setup"]))
    for place, row in zip(places, rows, strict=True):
        items[place] = row


def _parameters(item: pytest.Item) -> dict[str, object]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec and item.path.name == "test_faults.py" else {}
