"""The answerer without a model: correct about the conversation, and no answer to anything else."""

import pytest
from django.conf import settings as django_settings
from pytest_django import Settings

from conversations.answerers.recall import BEHIND, HELP, NOT_A_MODEL, RecallAnswerer
from conversations.turns import History
from tests.builders import a_turn

ASKED = ("What is Redis?", "And MongoDB?", "Which is faster?")


def ask(question: str, *asked: str, behind: bool = False) -> str:
    history = History.of([a_turn(each, NOT_A_MODEL) for each in asked])
    return "".join(RecallAnswerer().answer(question, history, behind=behind))


@pytest.mark.parametrize(
    "question",
    [
        "What did I just ask about?",
        "What did I just ask?",
        "what did i just ask",
        "WHAT DID I JUST ASK ABOUT",
        "What did I ask you just now?",
        "what did I ask before?",
        "What did I ask you earlier?",
        "What did I ask a moment ago?",
        "What did I last ask?",
        "What did I ask last?",
        "What did I ask?",
        "What’d I just ask?",
        "What have I just asked?",
        "What was I just asking about?",
        "What I just asked?",
        "What did I say?",
        "What did I just tell you?",
        "What did we just talk about?",
        "what was the previous question",
        "What was my last message?",
        "What is my previous question?",
        "What's my most recent question?",
        "What was the last thing I said?",
        "What was the last question I asked you?",
        "What was the question before this one?",
        "What was the question again?",
        "Which question did I ask last?",
        "Repeat my last question.",
        "Please repeat the last message",
        "Remind me what I asked.",
        "Do you remember my last question?",
        "Do you still know what I just said?",
        "Hi! Can you tell me what I just asked, please?",
        "Ok, thanks. So what did I just ask about?",
        "The weather is nice. What did I just ask?",
    ],
)
def test_it_recalls_the_last_question(question: str) -> None:
    assert ask(question, *ASKED) == "You just asked: “Which is faster?”"


@pytest.mark.parametrize(
    "question",
    [
        "what was my first question?",
        "What was the very first question?",
        "What was the first thing I asked?",
        "What did I ask first?",
        "What did I first ask you?",
        "What did I ask at the beginning?",
        "What did I originally ask?",
        "Tell me my initial question.",
        "How did I start this conversation?",
        "Do you remember the first message of this conversation?",
        "Which question did I ask first?",
    ],
)
def test_it_recalls_the_first_question(question: str) -> None:
    assert ask(question, *ASKED) == "Your first question was: “What is Redis?”"


@pytest.mark.parametrize(
    "question",
    [
        "How many questions have I asked?",
        "how many questions did i ask so far",
        "How many questions have I asked you in this conversation?",
        "How many messages have I sent?",
        "How many messages have we exchanged?",
        "How many times have I asked?",
        "How often have I asked you?",
        "How many questions so far?",
        "How many questions are in this chat?",
        "Count my questions.",
        "What is the number of questions I've asked?",
    ],
)
def test_it_counts_the_questions(question: str) -> None:
    assert ask(question, *ASKED) == "You have asked 3 questions before this one."
    assert ask(question, "One?") == "You have asked 1 question before this one."


@pytest.mark.parametrize(
    "question",
    [
        "What have I asked so far?",
        "What have I asked you?",
        "Which questions did I ask?",
        "What questions have I asked?",
        "List my questions",
        "Show me all my questions, please.",
        "Tell me everything I said.",
        "What did we talk about?",
        "What have we discussed in this session?",
        "What are my previous questions?",
    ],
)
def test_it_lists_the_questions(question: str) -> None:
    expected = "You have asked:\n- “What is Redis?”\n- “And MongoDB?”\n- “Which is faster?”"
    assert ask(question, *ASKED) == expected


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "How many questions are on the driving test?",
        "How many questions do I need to pass my test?",
        "How many questions should I ask in an interview?",
        "How many questions can I ask you?",
        "How many times a day should I eat?",
        "What is the last question of philosophy?",
        "What was the first question in parliament?",
        "Who asked the first question in parliament?",
        "What is the first thing to do in Rome?",
        "How do I delete the last message?",
        "What does my last message cost?",
        "My first question is: why is the sky blue?",
        "I have one last question.",
        "I just asked my boss for a rise, what now?",
        "I just told you.",
        "Have I asked this before?",
        "What did you say?",
        "What is a chat message?",
        "What is a question?",
        "What did I ask before my last question?",
        "What did I ask about Kubernetes?",
        "What did Einstein say before he died?",
        "Translate “What did I just ask?” to French",
        "¿Qué acabo de preguntar?",
        "我刚才问了什么?",
        "?!",
        "…",
    ],
)
def test_other_questions_get_the_answer_that_there_is_no_model(question: str) -> None:
    """A wrong "You just asked" would be worse than none."""
    assert ask(question, *ASKED) == NOT_A_MODEL


@pytest.mark.parametrize("question", ["What did I just ask?", "What was my first question?", "Count my questions"])
def test_before_the_first_question_nothing_is_recalled(question: str) -> None:
    assert ask(question) == "You have asked nothing before this question."


class TestForgotten:
    """Where older turns may have been trimmed, the answer mentions it."""

    def test_a_full_history_may_miss_its_beginning(self, settings: Settings) -> None:
        settings.CONV_MAX_TURNS = 3
        assert ask("How many questions have I asked?", *ASKED) == "You have asked at least 3 questions before this one."
        assert ask("What was my first question?", *ASKED).startswith("The first question I still have was: “What is R")
        assert ask("List my questions", *ASKED).startswith("You have asked, of what I still have:\n- “What is R")

    def test_a_history_that_is_not_full_has_its_beginning(self, settings: Settings) -> None:
        settings.CONV_MAX_TURNS = 4
        assert ask("How many questions have I asked?", *ASKED) == "You have asked 3 questions before this one."
        assert ask("What was my first question?", *ASKED) == "Your first question was: “What is Redis?”"

    def test_long_questions_may_have_trimmed_the_beginning(self, settings: Settings) -> None:
        """Few turns are left where CONV_MAX_BYTES is the limit."""
        settings.CONV_MAX_BYTES = 4096
        assert "at least 2 questions" in ask("How many questions have I asked?", "a" * 600, "b" * 600)

    def test_the_last_question_is_always_certain(self, settings: Settings) -> None:
        settings.CONV_MAX_TURNS = 3
        assert ask("What did I just ask?", *ASKED) == "You just asked: “Which is faster?”"


class TestBehind:
    """Where turns may be missing, an answer from the history says so."""

    @pytest.mark.parametrize(
        "question",
        ["What did I just ask?", "What was my first question?", "Count my questions", "tl;dr", "hi", "my name?"],
    )
    def test_an_answer_from_the_history_says_so(self, question: str) -> None:
        asked = "My name is Ada."
        assert ask(question, asked, behind=True).endswith(f"\n\n{BEHIND}")
        assert BEHIND not in ask(question, asked)

    def test_an_empty_history_may_not_be_the_beginning(self) -> None:
        answer = ask("What was my first question?", behind=True)
        assert answer == f"You have asked nothing before this question.\n\n{BEHIND}"

    @pytest.mark.parametrize("question", ["help", "My name is Ada.", "What are stars?"])
    def test_another_answer_does_not(self, question: str) -> None:
        assert ask(question, *ASKED, behind=True) == ask(question, *ASKED)


@pytest.mark.parametrize(("length", "quoted"), [(200, "a" * 200), (201, "a" * 200 + "…"), (65_536, "a" * 200 + "…")])
def test_long_questions_are_quoted_shortened(length: int, quoted: str) -> None:
    assert ask("What did I just ask?", "a" * length) == f"You just asked: “{quoted}”"


def test_a_long_question_is_answered_at_once() -> None:
    """The time is linear in the length of the question."""
    assert ask("what did i just ask about " * 2500 + "redis", *ASKED) == NOT_A_MODEL


@pytest.mark.parametrize("question", ["hi", "Hello!", "hey there", "Good morning", "Hi, good evening to you all."])
def test_it_greets(question: str) -> None:
    assert ask(question).startswith("Hello! I am the built-in answerer of onesource. I have no language model")
    assert ask(question, *ASKED).startswith("Hello again! You have asked 3 questions before this one.")


@pytest.mark.parametrize(
    "question",
    ["help", "Who are you?", "What is this?", "What can you do?", "Are you an AI?", "How do I attach a model?"],
)
def test_it_says_what_it_is_and_how_a_model_is_attached(question: str) -> None:
    assert ask(question, *ASKED) == HELP
    assert all(name in HELP for name in ("no language model", "ANSWERER=openai", "LLM_MODEL", "LLM_API_KEY"))
    assert all(hasattr(django_settings, name) for name in ("ANSWERER", "LLM_MODEL", "LLM_API_KEY"))


class TestSummary:
    @pytest.mark.parametrize(
        "question",
        ["Summarise this conversation", "Please summarize our chat so far.", "tl;dr", "Can you give me a summary?"],
    )
    def test_it_lists_the_turns_in_short(self, question: str) -> None:
        history = History.of([a_turn("What is Redis?", NOT_A_MODEL), a_turn("And\nMongoDB?", "A database. " * 10)])
        begun, *turns = "".join(RecallAnswerer().answer(question, history)).splitlines()
        assert begun.startswith("This conversation began at 20")
        assert "You have asked 2 questions before this one." in begun
        assert turns == ["1. “What is Redis?”", f"2. “And MongoDB?” – “{('A database. ' * 10)[:80]}…”"]

    def test_of_a_long_conversation_it_has_the_beginning_and_the_end(self, settings: Settings) -> None:
        settings.CONV_MAX_TURNS = 12
        begun, *turns = ask("Summarise this conversation", *(str(number) for number in range(1, 13))).splitlines()
        assert begun.startswith("What I still have begins at 20")
        assert turns == [f"{number}. “{number}”" if number else "…" for number in (1, 2, 3, 0, *range(6, 13))]

    def test_of_nothing_there_is_none(self) -> None:
        assert ask("tl;dr") == "There is nothing to sum up: this conversation begins here."

    @pytest.mark.parametrize("question", ["Summarize War and Peace", "What is a summary?", "Sum 1 and 2"])
    def test_other_summaries_need_a_model(self, question: str) -> None:
        assert ask(question, *ASKED) == NOT_A_MODEL


class TestTold:
    @pytest.mark.parametrize("question", ["What is my name?", "Do you remember my name?", "what's my name again"])
    def test_the_newest_sentence_that_says_it_is_quoted(self, question: str) -> None:
        told = ("My name is Eve.", "Hello! My name is Ada. I like cats.", "What is Redis?")
        assert ask(question, *told) == "You told me: “My name is Ada”"

    @pytest.mark.parametrize("question", ["What is my name?", "What is my dog's name?", "What is my capital gain?"])
    def test_what_was_not_told_is_not_known(self, question: str) -> None:
        assert ask(question, "My cat is black.") == NOT_A_MODEL

    def test_what_is_told_is_acknowledged(self) -> None:
        answer = ask("My favourite colour is green.")
        assert answer == "I keep that with this conversation. Ask me “What is my favourite colour?”, and I quote it."
        assert ask("What is my favourite colour?", "My favourite colour is green.").endswith(
            "“My favourite colour is green”"
        )

    @pytest.mark.parametrize("told", ["my name is " + "!" * 60_000 + "a", "my name is . " * 5000, "my " * 20_000])
    def test_a_long_message_is_looked_through_at_once(self, told: str) -> None:
        """The time is linear in its length."""
        assert len(ask("What is my name?", told)) < 250
