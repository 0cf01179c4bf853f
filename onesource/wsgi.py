"""What a worker of `manage.py serve` runs: the application, and the watcher over the two stores."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "onesource.settings")
application = get_wsgi_application()

from conversations.runtime import watcher  # noqa: E402  (it needs the application to be set up)

watcher.start()
