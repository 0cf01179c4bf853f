"""An operator at the command line, who switches: a process of its own that calls switching.record.

Says when it is ready, then reads lines `primary dual_write` and answers each with the time at which the switch
was recorded. Kept open, since a `manage.py` for every switch would cost two seconds of a core.
"""

import os
import sys
import time

import django


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "onesource.settings"
    django.setup()
    from conversations.policy import Routing
    from conversations.runtime import switching

    say("ready")
    for line in sys.stdin:
        primary, dual_write = line.split()
        switching.record(Routing(primary, dual_write == "1"), by="fault suite")
        say(str(time.monotonic()))


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
