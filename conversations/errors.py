"""Every error of this app. Its docstring is the text; the `code` and `status` of a ConversationError are what HTTP
clients get."""

from typing import Self

from django.conf import settings


class ConversationError(Exception):
    """Something about a conversation could not be done."""

    code = "error"
    status = 500

    @property
    def detail(self) -> str:
        """What a client reads."""
        return " ".join((self.__doc__ or "").split())

    def __str__(self) -> str:
        return ": ".join([self.detail, *map(str, self.args)])


class InvalidSession(ConversationError, ValueError):
    """A session_id must be 1 to 128 of the characters A-Z a-z 0-9 . _ -"""

    code = "invalid"
    status = 400


class InvalidUser(ConversationError, ValueError):
    """A user must be 1 to 128 of the characters A-Z a-z 0-9 @ . _ + : -"""

    code = "invalid"
    status = 400


class InvalidCursor(ConversationError, ValueError):
    """not a cursor of ours"""

    code = "invalid"
    status = 400


class TooLarge(ConversationError):
    """The request body is longer than MAX_BODY_BYTES"""

    code = "too_large"
    status = 413

    @property
    def detail(self) -> str:
        return f"The request body is longer than {settings.MAX_BODY_BYTES} bytes."


class TooManyAsks(ConversationError):
    """So many questions of yours are being answered that no further one is taken. Try again when one has ended."""

    code = "too_many_asks"
    status = 429


class TenantFull(ConversationError):
    """The conversations of your tenant take all the room that it may have. Delete some, and ask again some minutes
    later."""

    code = "tenant_full"
    status = 413


class CorruptHistory(ConversationError):
    """What is stored for this conversation is not a history"""

    code = "corrupt"

    def __init__(self, store: str, reason: object) -> None:
        super().__init__(store, reason)
        self.store = store


class StoreUnavailable(ConversationError):
    """A store could not be used"""

    code = "store_unavailable"
    status = 503

    def __init__(self, store: str, reason: str, *, unknown: bool = False) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason
        self.unknown = unknown
        """Whether the store may have done what it was asked all the same."""


class NoStore(ConversationError):
    """A store that is needed for this cannot be reached now; nothing was changed. Try again."""

    code = "store_unavailable"
    status = 503


class NoIssuerKeys(ConversationError):
    """Whether the token is good is not known: its issuer's keys could not be fetched. Try again."""

    code = "issuer_unavailable"
    status = 503


class Behind(ConversationError):
    """What was read may be missing messages that you were given, and `require_context` asks for them. Try again."""

    code = "context_behind"
    status = 503


class Unstored(ConversationError):
    """This turn is not known to be stored. Where an answer had been made it is carried: it was paid for."""

    answer: str
    session_id: str
    persisted: bool

    def carry(self, answer: str, session_id: str) -> Self:
        """Return the error with the answer that was made, and the session that the client named."""
        self.answer, self.session_id, self.persisted = answer, session_id, False
        return self


class NotPersisted(Unstored):
    """No store took this turn: it will not be remembered. The answer is in `answer`; ask again."""

    code = "not_persisted"
    status = 503


class OutcomeUnknown(Unstored):
    """No store has confirmed this turn, and one may have stored it. The answer is in `answer`; ask again with
    `idempotency_key` as the Idempotency-Key, and it is stored once."""

    code = "outcome_unknown"
    status = 503

    def __init__(self, idempotency_key: str) -> None:
        super().__init__()
        self.idempotency_key = idempotency_key


class NoLaterTurn(Unstored):
    """This conversation holds the last time there is, so no turn can follow; use another session_id."""

    code = "no_later_turn"
    status = 409


class InvalidTurn(ConversationError, ValueError):
    """This turn could not be read again, so it is not stored"""

    code = "invalid_turn"


class AnswererFailed(ConversationError):
    """The model gave no answer; nothing was stored. Try again."""

    code = "answerer_failed"
    status = 502


class ModelRefused(AnswererFailed):
    """The model's service refused this server; nothing was stored. An operator has to look into it: the log has the
    reason."""

    code = "model_refused"


class KeyReused(ConversationError):
    """This Idempotency-Key was used in this session with another question or answer; use a new one."""

    code = "idempotency_key_reused"
    status = 422


class KeyExpired(ConversationError):
    """The turn of this Idempotency-Key is not there any more: it was trimmed or deleted. Ask with a new key."""

    code = "key_expired"
    status = 409

    def __init__(self, asked_at: str) -> None:
        super().__init__()
        self.asked_at = asked_at
        """When the question was first asked."""


class KeyInUse(ConversationError):
    """Another request with this Idempotency-Key is still being answered. Try again."""

    code = "idempotency_key_in_use"
    status = 409


class OtherUser(ConversationError):
    """This conversation belongs to another `user`; use another session_id."""

    code = "other_user"
    status = 409


class Unknown(ConversationError):
    """No such conversation."""

    code = "not_found"
    status = 404


class WrongServer(Exception):
    """A store's server is not of the kind that its address names. Only the start of `serve` looks: it has no status."""


class SnapshotError(Exception):
    """A store's own snapshot could not be made or read. Only operators' commands use snapshots: it has no status."""

    def __str__(self) -> str:
        return ": ".join([" ".join((self.__doc__ or "").split()), *map(str, self.args)])


class NoSnapshot(SnapshotError):
    """A store has no snapshot of its own to give"""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadSnapshot(SnapshotError):
    """The Redis snapshot cannot be read"""


class UnverifiedSnapshot(BadSnapshot):
    """The Redis snapshot is not verified: it has no checksum, and the redis-server here is too old to read it"""
