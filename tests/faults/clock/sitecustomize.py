"""Put first on PYTHONPATH, this sets a process' clock wrong by CLOCK_SHIFT seconds.

libfaketime does it for any program, but crashes some builds of Redis and shifts timeouts too. Python reads
this module before all others; onesource takes the time from `time.time` and `conversations.ids.now`.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import time
from datetime import datetime, timedelta
from types import ModuleType

SHIFT = float(os.environ.get("CLOCK_SHIFT", "0"))
_right = time.time


class _Finder(importlib.abc.MetaPathFinder):
    """Finds conversations.ids as usual, and changes its clock as soon as it is loaded: other
    modules import the function by name."""

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != "conversations.ids":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec and spec.loader
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            now = module.now

            def shifted() -> datetime:
                return now() + timedelta(seconds=SHIFT)

            module.now = shifted  # type: ignore[attr-defined]

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if SHIFT:
    time.time = lambda: _right() + SHIFT
    sys.meta_path.insert(0, _Finder())
