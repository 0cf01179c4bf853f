"""Put first on PYTHONPATH, this sets a process' clock wrong by CLOCK_SHIFT seconds.

libfaketime does it for any program, but crashes some builds of Redis and shifts timeouts too. Python reads
this module before all others; onesource takes the time from `time.time`.
"""

import os
import time

SHIFT = float(os.environ.get("CLOCK_SHIFT", "0"))
_right = time.time

if SHIFT:
    time.time = lambda: _right() + SHIFT
