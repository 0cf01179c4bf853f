"""Move traffic back to the store that the environment names as the primary."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from ops.management.base import Result
from ops.management.commands import failover


class Command(failover.Command):
    help = "Make the store that CONV_STORE_PRIMARY names (redis) the primary again; the same steps as failover."

    def options(self, parser: CommandParser) -> None:
        self.more_options(parser)

    def run(self, **options: Any) -> Result:
        return super().run(to=settings.CONV_STORE_PRIMARY, **options)
