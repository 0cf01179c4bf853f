"""Make a token for a client of the API."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.api.authentication import make_token


class Command(BaseCommand):
    help = "Print a token for `Authorization: Bearer`, good until it expires or SECRET_KEY changes."
    requires_system_checks: list[str] = []  # noqa: RUF012

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="whose token it is; questions are limited by it")
        parser.add_argument("--tenant", default="", help="whose conversations it sees; none: those of no tenant")
        parser.add_argument("--days", type=int, default=365, help="how long it is good for (365)")

    def handle(self, *args: Any, name: str, tenant: str, days: int, **options: Any) -> None:
        if days < 1:
            raise CommandError("--days must be at least 1", returncode=2)
        try:
            self.stdout.write(make_token(name, tenant, days))
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from None
