"""The engine of MONGO_ENGINE=djongo: djongo 1.3.7, and what it needs to run on Django 5.2. Nothing else knows djongo.

djongo is under the AGPL-3.0, alpha, and made for Django 3.1. docs/adr/0001-mongo-engine.md has its limits.
"""

import sqlparse

_INSTALL = "pip install --no-deps -r requirements-djongo.txt"


def problem() -> str:
    """Return what has to be done before the engine can be used, "" where that is nothing."""
    try:
        from djongo import __version__ as version
    except ImportError:
        return f"djongo is not installed: {_INSTALL}"
    if (version, sqlparse.__version__) != ("1.3.7", "0.2.4"):
        # With a later sqlparse it cannot read INSERT and ORDER BY.
        return f"djongo {version} and sqlparse {sqlparse.__version__} are installed, not 1.3.7 and 0.2.4: {_INSTALL}"
    return ""
