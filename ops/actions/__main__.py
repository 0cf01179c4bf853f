"""`python -m ops.actions RUN`: the process of one run, which a worker of the server starts."""

import os
import sys

import django


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "onesource.settings")
    django.setup()
    from ops.actions import carrying_out  # it needs the models

    return carrying_out.run(int(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())
