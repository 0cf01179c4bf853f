#!/usr/bin/env python3
"""Run administrative commands; a bad setting is one clear line and exit code 2."""

import os
import sys


def main() -> None:
    os.umask(0o077)  # what we make is for nobody else: the database, the stores' data, backups
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "onesource.settings")
    try:
        from django.conf import settings
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Django is not installed here: run script/bootstrap, then .venv/bin/python manage.py")
    try:
        _ = settings.DEBUG  # loads them now, so that a bad one is named at once
    except ImproperlyConfigured as error:
        print(f"onesource: {error}", file=sys.stderr)
        sys.exit(2)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
