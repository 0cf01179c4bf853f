"""Runs each `check_…` of a module; prints as JSON the traceback of each that failed, and null for the others."""

import importlib
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable


def outcome(check: Callable[[str], None], url: str) -> str | None:
    try:
        check(url)
    except Exception:
        return traceback.format_exc()
    return None


module, url = sys.argv[1:]
warnings.simplefilter("ignore")  # LangChain deprecates what it names a history
logging.disable(logging.CRITICAL)  # a check lets a model fail
found = vars(importlib.import_module(f"{__package__}.{module}"))
checks = {name: check for name, check in found.items() if name.startswith("check_")}
sys.stdout.write(json.dumps({name: outcome(check, url) for name, check in checks.items()}))
