"""Serve the bare views with onesource's web server, in as many processes, without the watcher: they do not need it."""

import os
import signal

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.bare.settings"

import multiprocessing  # noqa: E402

from django.conf import settings  # noqa: E402
from django.utils.module_loading import import_string  # noqa: E402

from embedded import children  # noqa: E402


def work(parent: int) -> None:
    children.die_with_parent(parent, signal.SIGKILL)
    application = import_string(settings.WSGI_APPLICATION)
    from ops.server import asgi
    from ops.server.processes import Listening

    asgi.run(application, Listening("127.0.0.1", settings.PORT))


if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=work, args=(os.getpid(),)) for _ in range(settings.WEB_CONCURRENCY)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
