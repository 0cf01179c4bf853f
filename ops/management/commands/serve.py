"""The one way to start onesource, on a laptop and in production: stores, migrations, web server."""

import logging
import os
import shlex
import shutil
import signal
from typing import Any, NoReturn
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, run_checks
from django.core.management.base import BaseCommand, CommandError

import embedded
from conversations.stores import ALIASES, BACKENDS
from embedded import children
from ops.errors import CannotListen
from ops.server import migrate, processes
from ops.service import without_secrets

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Start the service: the stores that no variable names, the migrations, and the web server."
    requires_system_checks = ()  # one may ask a database; our own, which do not, are run below

    def handle(self, *args: Any, **options: Any) -> None:
        problems = [check for check in run_checks(tags=["onesource"]) if check.is_serious()]
        if problems:
            raise CommandError(_in_one_line(problems[0]), returncode=2)
        wanted = {"redis": settings.EMBEDDED_REDIS, "mongo": settings.EMBEDDED_MONGO}
        try:
            public, management = processes.places()
            stop_on_signals()
            with embedded.start(settings.VAR_DIR, **wanted) as stores:
                signal.signal(signal.SIGUSR1, lambda *_: stores.revive())
                share_metrics()
                migrate.migrate()
                processes.serve(public, management, lambda: self.announce(stores.urls))
        except (CannotListen, embedded.EmbeddedError) as error:
            raise CommandError(str(error), returncode=2) from None

    def announce(self, embedded_urls: dict[str, str]) -> None:
        """Say what runs where: to a person in words, to the log in one line."""
        here = page_url()
        urls = {"redis": settings.REDIS_URL, "mongo": settings.MONGO_URL, **settings.STORE_URLS, **embedded_urls}
        shown = {name: without_secrets(urls[name]) for name in ALIASES if name in urls}
        logger.info("serving", extra={"url": here, **shown, "auth": settings.CHAT_AUTH})
        if not (settings.EMBEDDED or self.stdout.isatty()):
            return
        lines = [f"onesource {settings.VERSION} serves {here} (try it: {here}/api/docs/). Ctrl-C stops it."]
        for name in shown:
            where = f", embedded, data in {settings.VAR_DIR / name}" if name in embedded_urls else ""
            lines.append(f"  {BACKENDS[name].label:<8}{shown[name]}{where}")
        if "redis" in embedded_urls:
            port = urlsplit(embedded_urls["redis"]).port
            usual = port == children.USUAL_PORT["redis"]
            password = shlex.quote(str(settings.VAR_DIR.absolute() / "redis.password"))
            command = f"redis-cli{'' if usual else f' -p {port}'}"
            lines.append(f"          look inside: REDISCLI_AUTH=$(cat {password}) {command}")
        if settings.CHAT_AUTH == "open":
            lines.append("  Auth is open: anyone who reaches this port may chat. CHAT_AUTH=token closes it.")
        self.stdout.write("\n".join(lines))


def _in_one_line(problem: CheckMessage) -> str:
    return f"{problem.msg.rstrip('.')}. {problem.hint}"


def stop_on_signals() -> None:
    """Make a signal an ordinary exit until the web server takes over, so that the stores are stopped too."""

    def leave(*_: object) -> NoReturn:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # a second one must not cut short what ends the stores
        raise SystemExit(0)

    for each in STOP_SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(each, leave)


def share_metrics() -> None:
    """Give the workers one folder to count in together, empty: what is left in it would be added up."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return
    folder = settings.VAR_DIR.absolute() / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def page_url() -> str:
    bind = settings.BIND.strip("[]")
    if bind in ("127.0.0.1", "::1", "0.0.0.0", "::"):  # noqa: S104
        bind = "localhost"
    return f"http://{f'[{bind}]' if ':' in bind else bind}:{settings.PORT}"
