"""The stores by alias, built from settings; imports no driver until one is asked for."""

from functools import cache

from django.conf import settings
from django.utils.module_loading import import_string

from conversations.stores.base import HistoryStore
from conversations.stores.info import StoreInfo
from conversations.stores.measured import MeasuredStore
from conversations.turns import Limits

REDIS, MONGO = "redis", "mongo"
ALIASES = (REDIS, MONGO)
_BACKENDS = {
    REDIS: "conversations.stores.redis.turns.CacheStore",
    MONGO: "conversations.stores.mongo.turns.DocumentStore",
}
_INFO = {
    REDIS: "conversations.stores.redis.info.read",
    MONGO: "conversations.stores.mongo.info.read",
}


def limits() -> Limits:
    """Return what a history may grow to, as the settings say."""
    return Limits(settings.CONV_TTL_SECONDS, settings.CONV_MAX_TURNS, settings.CONV_MAX_BYTES)


@cache
def store(alias: str) -> MeasuredStore:
    """Return the store of that alias, measured for whoever calls it."""
    built: HistoryStore = import_string(_BACKENDS[alias])(alias, limits())
    return MeasuredStore(built)


def info(alias: str) -> StoreInfo:
    """Return what the store's server says of itself; raise StoreUnavailable."""
    read: StoreInfo = import_string(_INFO[alias])(alias)
    return read


def other(alias: str) -> str:
    """Return the alias of the other store."""
    return MONGO if alias == REDIS else REDIS
