"""The built-in answerer: it uses no model, and answers questions about the conversation from its history.

It recalls, counts and lists questions, sums up the conversation, and quotes sentences like "my … is …".

A sentence is taken to be about the conversation when it asks what "I" or "we" said and has no other words than
such questions use: "What was the first question in parliament?" is about parliament.
"""

import re
from collections.abc import Iterator

from django.conf import settings

from conversations.answerers.base import Answerer
from conversations.turns import QUESTION, History, Turn

NO_MODEL = "I have no language model to answer that, but I keep it with this conversation."
NOT_A_MODEL = f"{NO_MODEL} Ask me “What did I just ask?”, or “help” for what else I can do."
BEHIND = "But I cannot read all of this conversation at the moment: there may be turns that I did not see."
HELP = """I am the built-in answerer of onesource. I have no language model: I answer only from this conversation. Try:
- What did I just ask? What was my first question?
- How many questions have I asked? List my questions.
- My favourite colour is green. And later: What is my favourite colour?
- Summarise this conversation.

To attach a model, start the service with ANSWERER=openai, LLM_MODEL and LLM_API_KEY.
LLM_BASE_URL names another endpoint that speaks the same API. ANSWERER=anthropic works too."""
_QUOTED = 200  # characters of a question that are quoted back
_SHORT = 80  # characters of a message in a summary
_FIRST_TURNS, _LAST_TURNS = 3, 7  # of a long conversation, in a summary

_SENTENCE_ENDS = re.compile(r"[.!?\n]+")
_SENTENCE = re.compile(r".*?(?=[.!?]+(?:\s|$)|\n|$)")
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


_GREET = _set("hi hello hey hiya howdy greetings")
_TIMES = _set("morning afternoon evening")
_GREETING = _GREET | _TIMES | _set("good there again and to you all everyone onesource")
_SUM_UP = _set("summarise summarize summary recap tldr sum")
_SUMMARY = (
    _SUM_UP | _TALK | _set("please can could would you me us give a of the this our my so far up now it all everything")
)
_ASKS_FOR_HELP = re.compile(
    r"(?:please )?help(?: me)?(?: please)?|who are you|what(?: is|'s) (?:this|onesource|your name)|what are you"
    r"|what (?:can|do) you do(?: for me)?|how does (?:this|it) work|are you (?:a|an) (?:ai|bot|model|language model)"
    r"|how (?:do|can) i (?:attach|connect|add|use) a (?:language )?model"
)
_ASKS_WHAT_IS_MINE = re.compile(
    r"(?:please )?(?:(?:do|can) you )?(?:still )?(?:remember |know |tell me |recall )?(?:(?:what|who)(?: is| are|'s) )?"
    r"my (?P<what>[\w' -]{1,40}?)(?: is| are)?(?: again)?(?: please)?"
)
_TELLS_WHAT_IS_MINE = re.compile(r"(?:please )?(?:remember(?: that)?:? )?my (?P<what>[\w' -]{1,40}?) (?:is|are) [^?]+")


class RecallAnswerer(Answerer):
    """Answers questions about the conversation itself; to any other it says that there is no model."""

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        words = _about_conversation(question)
        text = "" if words or len(question) > _QUOTED else _simplified(question)
        if found := _recall(words, history) if words else _from_history(text, history):
            yield f"{found}\n\n{BEHIND}" if behind else found
        else:
            yield (text and _without_history(text, question)) or NOT_A_MODEL


def _simplified(question: str) -> str:
    return " ".join(question.lower().replace("’", "'").replace("tl;dr", "tldr").strip(" \t\n.!?,…").split())


def _from_history(text: str, history: History) -> str:
    """Return a summary, a greeting, or what the user has said of "my …"; "" where the text asks for none of them."""
    words = frozenset(re.findall(r"[\w']+", text))
    if words & _SUM_UP and words <= _SUMMARY:
        return _summary(history)
    if words <= _GREETING and (words & _GREET or ("good" in words and words & _TIMES)):
        return _greeting(history)
    if (asked := _ASKS_WHAT_IS_MINE.fullmatch(text)) and _is_thing(asked["what"]):
        return _told(asked["what"], history)
    return ""


def _without_history(text: str, question: str) -> str:
    """Return what it can do, or that it keeps what the user says of "my …"; "" where the text is neither."""
    if _ASKS_FOR_HELP.fullmatch(text):
        return HELP
    if (told := _TELLS_WHAT_IS_MINE.fullmatch(text)) and "?" not in question and _is_thing(told["what"]):
        return f"I keep that with this conversation. Ask me “What is my {told['what']}?”, and I quote it."
    return ""


def _is_thing(what: str) -> bool:
    """Return whether it is not a question or message of the user."""
    return not frozenset(what.split()) & (_ONE | _MANY)


def _told(what: str, history: History) -> str:
    """Return the newest sentence that says what it is; "" where there is none."""
    says = re.compile(rf"\bmy {re.escape(what)} (?:is|are) ", re.IGNORECASE)
    for message in reversed(list(history)):
        if message.role == QUESTION and (found := says.search(message.content)):
            begins = message.content[found.start() : found.start() + _QUOTED + 1]
            return f"You told me: {_quote(_SENTENCE.match(begins)[0])}"  # type: ignore[index]  # it matches any text
    return ""


def _greeting(history: History) -> str:
    if not len(history):
        return (
            "Hello! I am the built-in answerer of onesource. I have no language model, but I remember this conversation"
            " and answer questions about it. Ask “help” for examples."
        )
    return f"Hello again! {_count(history)} Ask me what they were, or for a summary."


def _summary(history: History) -> str:
    turns = history.turns()
    if not turns:
        return "There is nothing to sum up: this conversation begins here."
    numbered = [f"{number}. {_in_short(turn)}" for number, turn in enumerate(turns, 1)]
    if len(numbered) > _FIRST_TURNS + _LAST_TURNS:
        numbered[_FIRST_TURNS:-_LAST_TURNS] = ["…"]
    begun = f"{turns[0].question.time:%Y-%m-%d %H:%M} UTC"
    known = "What I still have begins" if _may_be_trimmed(history) else "This conversation began"
    text = f"{known} at {begun}. {_count(history)} I have no model to put it in other words, so in short:"
    return "\n".join([text, *numbered])


def _in_short(turn: Turn) -> str:
    """Return the beginning of the question, and of an answer that says more than that there is no model."""
    asked, answer = (" ".join(message.content.split()) for message in turn.messages())
    question = _quote(asked, _SHORT)
    return question if answer.startswith(NO_MODEL) else f"{question} – {_quote(answer, _SHORT)}"


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
        return _count(history)
    if words & _FIRST:
        return f"{'The first question I still have' if some else 'Your first question'} was: {asked[0]}"
    if words & _MANY or (words & _ALL_ALONG and not words & _NOW):
        return "\n".join(
            [f"You have asked{', of what I still have' if some else ''}:", *(f"- {each}" for each in asked)]
        )
    return f"You just asked: {asked[-1]}"


def _count(history: History) -> str:
    asked = sum(message.role == QUESTION for message in history)
    number = "1 question" if asked == 1 else f"{asked} questions"
    return f"You have asked {'at least ' if _may_be_trimmed(history) else ''}{number} before this one."


def _may_be_trimmed(history: History) -> bool:
    """Return whether older turns may have been trimmed: the history is then at or near a limit."""
    size = len(history.lines())
    return len(history) >= 2 * int(settings.CONV_MAX_TURNS) or size > int(settings.CONV_MAX_BYTES) // 4


def _quote(text: str, most: int = _QUOTED) -> str:
    return f"“{text if len(text) <= most else text[:most] + '…'}”"
