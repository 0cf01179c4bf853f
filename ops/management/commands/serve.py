"""The one way to start onesource, on a laptop and in production: stores, migrations, web server."""

import logging
import os
import shlex
import shutil
import signal
from threading import Thread
from typing import Any, NoReturn
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, run_checks
from django.core.management.base import BaseCommand, CommandError

import embedded
from conversations.errors import StoreUnavailable, WrongServer
from conversations.stores import ALIASES, MONGO, check_servers, misconfigured, missing_rights, store
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
            embedded.refuse_second(settings.VAR_DIR)  # before the ports: that one has them
            public, management = processes.places()
            stop_on_signals()
            with embedded.start(settings.VAR_DIR, **wanted) as stores:
                signal.signal(signal.SIGUSR1, lambda *_: stores.revive())
                check_servers()
                share_metrics()
                Thread(target=report_misconfigured, daemon=True).start()  # a store that is out delays no start
                migrate.migrate()

                def opened() -> None:
                    stores.publish(page_url())
                    self.announce(stores.urls)

                processes.serve(public, management, opened)
        except (CannotListen, WrongServer, embedded.EmbeddedError) as error:
            raise CommandError(str(error), returncode=2) from None

    def announce(self, embedded_urls: dict[str, str]) -> None:
        """Write what runs where: to the log in one event, to a terminal in words."""
        here = page_url()
        urls = {"redis": settings.REDIS_URL, "mongo": settings.MONGO_URL, **settings.STORE_URLS, **embedded_urls}
        shown = {name: without_secrets(urls[name]) for name in ALIASES if name in urls}
        logger.info("serving", extra={"url": here, **shown, "auth": settings.CHAT_AUTH})
        if settings.LOG_FORMAT == "text":
            self.stdout.write("\n".join(_lines(here, embedded_urls)))


def report_misconfigured() -> None:
    """Log, in a line each, what has to be set right in the stores. MongoDB is looked at where it is migrated."""
    for alias in ALIASES:
        if alias == MONGO:
            continue
        try:
            store(alias).ping()
            problem = missing_rights(alias)
        except StoreUnavailable as error:
            problem = misconfigured(alias, error)
        if problem:
            logger.error("store_misconfigured", extra={"store": alias, "problem": problem})


def _lines(here: str, embedded_urls: dict[str, str]) -> list[str]:
    """Return what a person wants to know first."""
    lines = [
        f"onesource {settings.VERSION} serves {here}/ (Ctrl-C stops it)",
        f"  API docs   {here}/api/docs/",
        f"  Admin      {here}/admin/ (its first user: .venv/bin/python manage.py createsuperuser)",
    ]
    if "redis" in embedded_urls:
        port = urlsplit(embedded_urls["redis"]).port
        usual = port == children.USUAL_PORT["redis"]
        password = shlex.quote(str(settings.VAR_DIR.absolute() / "redis.password"))
        lines.append(f"  redis-cli  REDISCLI_AUTH=$(cat {password}) redis-cli{'' if usual else f' -p {port}'}")
    if settings.CHAT_AUTH == "open":
        lines.append("  Auth is open: anyone who reaches this port may chat. CHAT_AUTH=token closes it.")
    return lines


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
