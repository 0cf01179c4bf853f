"""The stores that `manage.py serve` starts where no variable names one: child processes with data of their own."""

from embedded.errors import EmbeddedError
from embedded.requests import VERBS, request
from embedded.stores import Stores, dev_secret, refuse_second, start, url

__all__ = ["VERBS", "EmbeddedError", "Stores", "dev_secret", "refuse_second", "request", "start", "url"]
