"""The built-in answerer: it uses no model, and answers questions about the conversation from its history.

A sentence is taken to be about the conversation when it asks what "I" or "we" said and has no other words than
such questions use: "What was the first question in parliament?" is about parliament.
"""

import re
from collections.abc import Iterator

from django.conf import settings

from conversations.answerers.base import Answerer
from conversations.turns import QUESTION, History

NOT_A_MODEL = "No model is configured; I can only recall this conversation."
_QUOTED = 200  # characters of a question that are quoted back

_SENTENCE_ENDS = re.compile(r"[.!?\n]+")
_AGO = re.compile(r"\ba (?:moment|minute|second|while) ago\b")
_TOO_FAR = re.compile(r"\bbefore (?:the |my |our )?(?:last|previous|first)\b")  # unclear which question that is


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ASK = _set("what what's what'd whats which how count remind repeat recall remember tell show list quote")
_WHO = _set("i we i've we've i'd we'd")
_WHOSE = _set("my our")
_SAY = _set("ask say tell mention write send type talk discuss exchange start begin")
_SAID = _set(
    "asked asking said saying told telling mentioned wrote written sent typed talked talking discussed exchanged"
)
_ONE = _set("question message query prompt request")
_MANY = _set("questions messages queries prompts requests things everything all list")
_COUNT = _set("many often count number")
_FIRST = _set("first initial initially original originally earliest start started beginning begin")
_LAST = _set("last latest recent previous prior earlier")
_NOW = _set("just last")
_ALL_ALONG = _set("have i've we've we far")
_TALK = _set("conversation chat session thread discussion")
_REST = _set(
    """hi hello hey ok okay so and but well now then please thanks sorry can could would will do did you know still
    is was are were has had me to of about in at the that this it one thing time times very most again exactly
    before ago already previously until here today up with"""
)
_WORDS = (
    _ASK | _WHO | _WHOSE | _SAY | _SAID | _ONE | _MANY | _COUNT | _FIRST | _LAST | _NOW | _ALL_ALONG | _TALK | _REST
)


class RecallAnswerer(Answerer):
    """Answers questions about the conversation itself; to any other it says that there is no model."""

    def answer(self, question: str, history: History) -> Iterator[str]:
        words = _about_conversation(question)
        yield _recall(words, history) if words else NOT_A_MODEL


def _about_conversation(question: str) -> frozenset[str]:
    """Return the words of the first sentence about this conversation, an empty set when there is none."""
    for sentence in _SENTENCE_ENDS.split(question.lower().replace("’", "'")):
        words = frozenset(re.findall(r"[\w']+", _AGO.sub("before", sentence)))
        if words <= _WORDS and words & _ASK and _asks_about_conversation(words) and not _TOO_FAR.search(sentence):
            return words
    return frozenset()


def _asks_about_conversation(words: frozenset[str]) -> bool:
    """Return whether they ask what was said, or for questions of the user, of this conversation, or by their place."""
    said = words & _SAID or (words & _SAY and words & {"did", "what'd"})
    here = "far" in words or (words & _TALK and words & {"this", "our"})
    placed = "the" in words and words & (_FIRST | _LAST | {"was"})
    return bool((words & _WHO and said) or (words & (_ONE | _MANY) and (words & _WHOSE or here or placed)))


def _recall(words: frozenset[str], history: History) -> str:
    asked = [_quote(message.content) for message in history if message.role == QUESTION]
    some = _may_be_trimmed(history)
    if not asked:
        return "You have asked nothing before this question."
    if words & _COUNT:
        number = "1 question" if len(asked) == 1 else f"{len(asked)} questions"
        return f"You have asked {'at least ' if some else ''}{number} before this one."
    if words & _FIRST:
        return f"{'The first question I still have' if some else 'Your first question'} was: {asked[0]}"
    if words & _MANY or (words & _ALL_ALONG and not words & _NOW):
        return "\n".join(
            [f"You have asked{', of what I still have' if some else ''}:", *(f"- {each}" for each in asked)]
        )
    return f"You just asked: {asked[-1]}"


def _may_be_trimmed(history: History) -> bool:
    """Return whether older turns may have been trimmed: the history is then at or near a limit."""
    size = len(history.lines())
    return len(history) >= 2 * int(settings.CONV_MAX_TURNS) or size > int(settings.CONV_MAX_BYTES) // 4


def _quote(text: str) -> str:
    return f"“{text if len(text) <= _QUOTED else text[:_QUOTED] + '…'}”"
