"""What the clients of a row did, as events for `tests.answers`."""

from collections.abc import Mapping

from tests.answers import FAILED, OK, Event
from tests.faults.clients import Ask, Deletion, Talk

Shown = Mapping[str, tuple[str, ...]]
"""The questions that each answer was shown, by the answer's last word."""


def events_of(talks: list[Talk], shown: Shown) -> list[Event]:
    """Return all that was asked and deleted, in the order in which it began."""
    asked = [_asked(ask, shown) for talk in talks for ask in talk.asks]
    deleted = [_deleted(talk.client, gone) for talk in talks for gone in talk.deletions]
    return sorted([*asked, *deleted], key=lambda event: event.began)


def _asked(ask: Ask, shown: Shown) -> Event:
    event = Event("ask", ask.session, ask.machine, ask.started, ask.question, ask.carried, ask.ended,
                  FAILED, ask.error, client=ask.client)  # fmt: skip
    if ask.acknowledged:
        event.outcome, event.context, event.message_id = OK, ask.body["context"], ask.body["message_id"]
        event.stored_in, event.replayed = tuple(ask.body["stored_in"]), ask.body["replayed"]
        event.seen = shown[ask.body["answer"].rpartition(" ")[2]]
    return event


def _deleted(client: int, gone: Deletion) -> Event:
    outcome = FAILED if gone.error else OK
    return Event("delete", gone.session, gone.machine, gone.started, ended=gone.ended, outcome=outcome, client=client)
