"""How a conversation is named: its session is `session_id`, or `tenant:session_id`, and its key `conv:<session>`."""

from conversations.errors import InvalidSession
from conversations.turns import SESSION

PREFIX = "conv"
KEY_BEGINS = f"{PREFIX}:"


def session_named(session_id: str, tenant: str = "") -> str:
    """Return the session of a tenant's session_id; "" is no tenant."""
    return f"{tenant}:{session_id}" if tenant else session_id


def tenant_of(session: str) -> str:
    """Return the session's tenant, "" for none."""
    return session.rpartition(":")[0]


def id_of(session: str) -> str:
    """Return the session_id, without the tenant."""
    return session.rpartition(":")[2]


def is_of(session: str, tenant: str | None) -> bool:
    """Return whether the session is the tenant's: "" for none, None for any."""
    return tenant is None or tenant_of(session) == tenant


def make_key(session: str, prefix: str = PREFIX, version: int | None = None) -> str:
    """Return the session's key, in Redis and in MongoDB; raise InvalidSession. Django's cache calls it as its
    KEY_FUNCTION."""
    if not SESSION.fullmatch(session):
        raise InvalidSession
    return f"{prefix}:{session}"


def session_of(key: str) -> str:
    """Return the session of a key. Django's cache calls it as its REVERSE_KEY_FUNCTION."""
    return key.partition(":")[2]


def is_key(key: object) -> bool:
    """Return whether it is the key of a conversation: another program may have written others, in MongoDB of any
    type."""
    return isinstance(key, str) and key.startswith(KEY_BEGINS) and SESSION.fullmatch(session_of(key)) is not None


def part_of_name(text: str) -> str:
    """Return the text if it can be part of a session's name, "" included; raise InvalidSession."""
    if text and not SESSION.fullmatch(text.strip(":") or "x"):
        raise InvalidSession
    return text
