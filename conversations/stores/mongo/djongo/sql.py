"""What djongo cannot read of the SQL of Django 5.2, or reads as something else, written in another way."""

import re
from typing import Any

from bson.regex import Regex
from django.db import NotSupportedError
from django.db.models import Value, lookups
from django.db.models.sql.compiler import PositionRef

Sql = tuple[str, Any]


def register(vendor: str) -> None:
    """Have Django write these for databases of the vendor, and for no other."""
    for node, write in _WRITERS.items():
        setattr(node, f"as_{vendor}", write)


def _position(ref: Any, compiler: Any, connection: Any) -> Sql:
    """Order by the expression: of a number in ORDER BY djongo knows nothing."""
    sql: Sql = compiler.compile(ref.source)
    return sql


def _value(value: Value, compiler: Any, connection: Any) -> Sql:
    """Select a number as exists() did for Django 3.1: a parameter makes djongo recurse for ever."""
    if type(value.value) is int and not value.for_save:
        return f"({value.value})", []
    return value.as_sql(compiler, connection)


def _pattern(lookup: Any, compiler: Any, connection: Any) -> Sql:
    """Look for a regular expression of ours, which MongoDB takes in a list.

    djongo makes one of a LIKE by replacing each % with .*: what is looked for would be a regular expression of a
    client's, and where it is a JSON object djongo would take from it which field to compare.
    """
    if not lookup.rhs_is_direct_value():
        raise NotSupportedError("A pattern has to be a value.")
    column, params = lookup.process_lhs(compiler, connection)
    kind = lookup.lookup_name.removeprefix("i")
    pattern = str(lookup.rhs) if kind == "regex" else _PATTERNS[kind].format(re.escape(str(lookup.rhs)))
    return f"{column} IN (%s)", [*params, Regex(pattern, "i" if kind != lookup.lookup_name else "")]


_PATTERNS = {"contains": "{}", "startswith": "^{}", "endswith": "{}$(?!\n)", "exact": "^{}$(?!\n)"}
_WRITERS = {
    PositionRef: _position,
    Value: _value,
    lookups.IExact: _pattern,
    lookups.PatternLookup: _pattern,
    lookups.Regex: _pattern,
}
