"""One turn: read the history, answer the question, store both, and report where."""

import logging
import queue
import secrets
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime

from django.db import connections
from django.utils.crypto import salted_hmac

from conversations import deadline, history, policy
from conversations.answerers import answerer
from conversations.clock import now
from conversations.errors import (
    AnswererFailed,
    Behind,
    ConversationError,
    CorruptHistory,
    KeyExpired,
    KeyReused,
    NoLaterTurn,
    NotPersisted,
    OtherUser,
    OutcomeUnknown,
    Unstored,
)
from conversations.ids import next_time, stamp, time_at, time_of
from conversations.runtime.asking import asking
from conversations.runtime.idempotency import idempotency_lock
from conversations.stores.sessions import session_named
from conversations.turns import Turn, make_turn, question_named
from telemetry import metrics, traces
from telemetry.logs import event, hashed

logger = logging.getLogger(__name__)

_SALT = "onesource.session_id"


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asked, or had answered elsewhere; validated."""

    text: str
    session_id: str = ""
    tenant: str = ""
    last_message_id: str | None = None
    require_context: bool = False
    key: str | None = None
    fresh: bool = False
    """Whether the server made the session_id for this question: its client was given no turn of it yet."""
    asker: str = ""
    """Who asks, where the questions that are answered at once are limited: "" for nobody."""
    answer: str | None = None
    """The answer, where it was given elsewhere and only the turn is to be stored."""
    user: str | None = None
    """Whose conversation it is, as the client says; None where it does not."""

    @property
    def session(self) -> str:
        return session_named(self.session_id, self.tenant)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answered turn; AnswerSerializer writes it."""

    session_id: str
    answer: str
    message_id: str | None
    msg_count_before: int
    new_thread: bool
    store: str
    stored_in: tuple[str, ...]
    context: str
    replayed: bool

    @property
    def persisted(self) -> bool:
        return bool(self.stored_in)


def new_session_id(key: str | None = None, *scope: str) -> str:
    """Return a session_id that cannot be guessed. With an Idempotency-Key it is the same for each try of its holder,
    which the scope names: the retry of a question that begins a conversation meets the first one's turn there."""
    if key is None:
        return secrets.token_urlsafe(18).replace("-", ".")
    named = salted_hmac(_SALT, "\n".join((*scope, key)), algorithm="sha256").digest()
    return urlsafe_b64encode(named[:18]).decode().replace("-", ".")


def ask(question: Question) -> Answer:
    """Return the stored answer. Raise NoStore when no store can be read, Behind, OtherUser, KeyReused, KeyExpired,
    NoLaterTurn, AnswererFailed, TooManyAsks, or NotPersisted or OutcomeUnknown, which carry the answer that no store
    took or has confirmed."""
    with asking(question.asker), idempotency_lock(question.session, question.key):
        return PendingTurn(question).finish()


def stream(question: Question) -> Iterator[str | Answer]:
    """Yield the answer's pieces and then the Answer; raise as `ask` does. What fails before the answerer is asked is
    raised by this call itself.

    A thread answers and stores the turn, so that it is finished even when the client disconnects.
    """
    with ExitStack() as stack:
        stack.enter_context(asking(question.asker))
        stack.enter_context(idempotency_lock(question.session, question.key))
        pending = PendingTurn(question)
        held = stack.pop_all()  # the thread gives it back
    pieces: queue.SimpleQueue[str | Answer | ConversationError] = queue.SimpleQueue()

    def work() -> None:
        try:
            pieces.put(pending.finish(pieces.put))
        except ConversationError as error:
            pieces.put(error)
        except Exception:
            logger.exception("stream_failed")
            pieces.put(AnswererFailed("unexpectedly"))
        finally:
            held.close()
            connections.close_all()

    go_on = copy_context().run  # with what is left until the deadline
    try:
        threading.Thread(target=go_on, args=[work], name="asking", daemon=True).start()
    except BaseException:
        held.close()
        raise
    return _until_answered(pieces)


def _until_answered(pieces: "queue.SimpleQueue[str | Answer | ConversationError]") -> Iterator[str | Answer]:
    while True:
        piece = pieces.get()
        if isinstance(piece, ConversationError):
            raise piece
        yield piece
        if isinstance(piece, Answer):
            return


class PendingTurn:
    """A turn that is being answered: made by reading the history, finished by answering and storing."""

    def __init__(self, question: Question) -> None:
        self.asked_at: datetime = now()
        self.question = question
        self.reading = self._read()
        self.user = self._user(self.reading.history.user)
        self._report_context()
        try:
            self.stored = self._earlier_turn()
        except CorruptHistory:
            self._read_again()
            self.stored = self._earlier_turn()
        if not self.stored:
            next_time(self.reading.seen, self.asked_at)  # raises NoLaterTurn before a model is paid

    def _read(self, *, lazy: bool = True) -> history.Reading:
        question = self.question
        return history.read(
            question.session,
            question.last_message_id,
            fresh=question.fresh,
            keyed=question.key is not None,
            lazy=lazy,
        )

    def _user(self, known: str | None) -> str | None:
        """Return whose conversation it is from now on, that of this user until now; raise OtherUser."""
        named = self.question.user
        if known and named and known != named:
            raise OtherUser
        return known or named

    def _read_again(self) -> None:
        """Read once more where the history turned out to be corrupt as it was looked at: now it is quarantined."""
        self.reading = self._read(lazy=False)

    def finish(self, on_piece: Callable[[str], None] = lambda piece: None) -> Answer:
        """Return the Answer; call `on_piece` with each piece as it comes."""
        if self.stored:
            on_piece(self.stored.answer.content)
            metrics.turns.labels(outcome="replayed").inc()
            return self._answer(self.stored, self._keep(self.stored), replayed=True)
        turn = self._make_turn(on_piece)
        try:
            written = history.append(self.question.session, turn, self.reading)
        except NoLaterTurn:
            raise self._unstored(turn, NoLaterTurn()) from None
        turn = written.turn
        if not written.stored_in:
            raise self._unstored(turn, OutcomeUnknown(turn.key) if written.unknown else NotPersisted())
        if not written.new:
            return self._duplicate(turn, written.stored_in)
        metrics.turns.labels(outcome="answered").inc()
        return self._answer(turn, written.stored_in, replayed=False)

    def _unstored(self, turn: Turn, error: Unstored) -> Unstored:
        """Return the error, which carries the answer."""
        metrics.not_persisted.inc()
        metrics.turns.labels(outcome="outcome_unknown" if isinstance(error, OutcomeUnknown) else "not_persisted").inc()
        answer = self._answer(turn, (), replayed=False)
        return error.carry(answer.answer, answer.session_id)

    def _report_context(self) -> None:
        """Count and log the context that was found; raise Behind where it is not enough for the client."""
        question, reading = self.question, self.reading
        behind = reading.context == policy.BEHIND
        metrics.msg_count_before.observe(len(reading.history))
        if question.last_message_id:
            metrics.expected_context.inc()
        if behind:
            metrics.missing_context.inc()
        event(
            logger,
            logging.INFO,
            "msg_count_before",
            msg_count_before=len(reading.history),
            session=hashed(question.session),
            store=reading.store,
            context=reading.context,
        )
        if behind and question.require_context:
            raise Behind

    def _earlier_turn(self) -> Turn | None:
        """Return the turn that was stored with this Idempotency-Key; raise KeyReused for another question, and
        KeyExpired where the turn is gone."""
        if not self.question.key:
            return None
        turn = self.reading.history.turn_of(self.question.key)
        if turn:
            self._require_same(turn)
        if not turn and (asked_at := self._asked_before(self.question.key)):
            raise KeyExpired(stamp(asked_at))
        return turn

    def _asked_before(self, key: str) -> datetime | None:
        """Return when a question whose turn is gone was asked with this key, None where it was not. A key made from an
        id is kept nowhere: its turn is gone where all that is left is later, or it was deleted."""
        if key in self.reading.keys:
            return time_at(self.reading.keys[key])
        named = question_named(key)
        return time_of(named) if named and self._is_gone(named) else None

    def _is_gone(self, question_id: str) -> bool:
        """Return whether the question comes before all that is there, and is in no store that was not read."""
        first, tombstone = self.reading.history.first_id or "", self.reading.tombstone or ""
        earlier = question_id < first
        return question_id <= tombstone or (earlier and self.reading.context == policy.FULL)

    def _keep(self, turn: Turn) -> tuple[str, ...]:
        """Store the turn where it is missing, and return the stores that have it. A process that was killed between
        its two writes left it in one store and acknowledged nothing; this answer acknowledges it."""
        if not history.routing().dual_write:
            return (self.reading.store,)
        return history.keep(self.question.session, turn, self.reading) or (self.reading.store,)

    def _duplicate(self, turn: Turn, stored_in: tuple[str, ...]) -> Answer:
        """Return the answer of the request with the same key that stored its turn first."""
        self._require_same(turn)
        metrics.turns.labels(outcome="replayed").inc()
        return self._answer(turn, stored_in, replayed=True)

    def _require_same(self, turn: Turn) -> None:
        """Raise KeyReused where the turn that has the key has another question, or not the answer that was given, and
        OtherUser where it is of another user, who has asked at the same moment."""
        question = self.question
        self._user(turn.question.user)
        if turn.question.content != question.text or question.answer not in (None, turn.answer.content):
            raise KeyReused

    def _make_turn(self, on_piece: Callable[[str], None]) -> Turn:
        """Return the question with its answer; raise AnswererFailed."""
        text = self._answered(on_piece) if self.question.answer is None else self.question.answer
        # The turn must also be later than what the client has seen and we have not.
        given = self.question.last_message_id
        seen = max(filter(None, (self.reading.seen, given and stamp(time_of(given)))), default=None)
        return make_turn(self.question.text, text, seen, self.asked_at, now(), self.question.key, self.user)

    def _answered(self, on_piece: Callable[[str], None]) -> str:
        """Return what the answerer answers; raise AnswererFailed."""
        pieces: list[str] = []
        try:
            with metrics.answer_seconds.time(), deadline.excluded(), traces.answering():
                for piece in self._pieces():
                    pieces.append(piece)
                    on_piece(piece)
        except AnswererFailed as error:
            metrics.turns.labels(outcome="answerer_failed").inc()
            event(logger, logging.ERROR, "answerer_error", error=str(error))
            raise
        # Half a surrogate pair is no text: no store can hold it, so it must not be acknowledged.
        return "".join(pieces).encode(errors="replace").decode()

    def _pieces(self) -> Iterator[str]:
        """Yield the answer."""
        try:
            yield from self._ask_answerer()
        except CorruptHistory:
            self._read_again()
            yield from self._ask_answerer()

    def _ask_answerer(self) -> Iterator[str]:
        reading = self.reading
        return answerer().answer(self.question.text, reading.history, behind=reading.context == policy.BEHIND)

    def _answer(self, turn: Turn, stored_in: tuple[str, ...], *, replayed: bool) -> Answer:
        known = self.reading.history
        before = sum(message.id < turn.id for message in known) if replayed else len(known)
        return Answer(
            session_id=self.question.session_id,
            answer=turn.answer.content,
            message_id=turn.answer.id if stored_in else None,
            msg_count_before=before,
            new_thread=before == 0 and self.reading.context == policy.FULL,
            store=self.reading.store,
            stored_in=stored_in,
            context=self.reading.context,
            replayed=replayed,
        )
