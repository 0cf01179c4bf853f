"""djongo's operations, with JSON as MongoDB's own lists and documents."""

import json
from typing import Any

from djongo import operations


class Operations(operations.DatabaseOperations):
    """What Django's JSONField needs."""

    def adapt_json_value(self, value: Any, encoder: Any) -> Any:
        return json.loads(json.dumps(value, cls=encoder))

    def get_db_converters(self, expression: Any) -> list[Any]:
        converters: list[Any] = super().get_db_converters(expression)
        if expression.output_field.get_internal_type() == "JSONField":
            converters.append(_as_text)
        return converters


def _as_text(value: Any, expression: Any, connection: Any) -> str:
    """Return what JSONField expects of a database."""
    return json.dumps(value)
