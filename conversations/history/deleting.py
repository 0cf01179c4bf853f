"""Deleting one conversation: from both stores, so that nothing brings it back."""

from conversations import policy
from conversations.errors import NoStore, StoreUnavailable
from conversations.history.reading import Look
from conversations.history.writing import flag_later, flag_unsynced
from conversations.ids import tombstone_for
from conversations.runtime.state import state
from conversations.stores import ALIASES, store


def delete(session: str) -> bool:
    """Delete the conversation and leave a tombstone in every store that can be reached; return whether
    there was any, or may have been in a store that is out. Raise NoStore when none can be reached: nothing was
    deleted then."""
    inputs = state().inputs(session)
    reading, look = policy.plan_read(inputs), Look(session)
    look.compare(reading.order)
    look.compare(policy.plan_write(inputs, look.failed).order)  # what it can be deleted from may have later ids
    if not look.answered:
        look.compare(reading.last_resort)
    if not look.answered:
        raise NoStore  # before anything is sent: a store that does not answer may apply it later
    with state().journal.writing(session):
        return Deletion(session, _upto(look), policy.plan_write(inputs, look.failed)).run()


def _upto(look: Look) -> str:
    """Return the id up to which all is deleted: the last one seen, or the time where a store could not be asked for
    its last one. Turns that come later are not deleted, also where this machine's clock is ahead of theirs."""
    last = look.plan.last_id
    return last if last and look.compared == set(ALIASES) else tombstone_for(last)


class Deletion:
    """One deletion on its way into both stores."""

    def __init__(self, session: str, upto: str, plan: policy.WritePlan) -> None:
        self.session = session
        self.upto = upto
        self.plan = plan
        self.done: list[str] = []
        self.missed = set(plan.last_resort)
        self.flagged: set[str] = set()
        """Stores that were given an unsynced flag with the deletion."""
        self.unknown_in: list[str] = []
        """Stores that may have deleted it without an acknowledgement."""
        self.found = False

    def run(self) -> bool:
        """Delete in every store; return whether there was anything, or may have been. Raise NoStore."""
        for alias in self.plan.order + self.plan.last_resort:
            if self.done and alias in self.plan.last_resort:
                break
            self._delete(alias)
        if not self.done:
            flag_later(self.session, self.unknown_in)
            raise NoStore
        self._flag_missed()
        found = self.found or len(self.done) < len(ALIASES)
        if found:
            state().deletions.note({self.session: self.upto})
        return found

    def _delete(self, alias: str) -> None:
        flag = bool(self.missed - {alias})
        try:
            self.found |= store(alias).delete(self.session, self.upto, flag=flag)
        except StoreUnavailable as error:
            self.missed.add(alias)
            if error.unknown:
                self.unknown_in.append(alias)
            return
        self.done.append(alias)
        if flag:
            self.flagged.add(alias)

    def _flag_missed(self) -> None:
        """See to it that a store which has deleted it is flagged where another has not."""
        if self.flagged:
            state().shared_flags.record(self.done[-1])
        elif len(self.done) < len(ALIASES):
            flag_unsynced(self.session, self.done[0])  # that the other missed it was not known before
