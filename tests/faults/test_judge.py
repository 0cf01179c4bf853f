"""The judge itself: a suite that cannot fail proves nothing, so every offence is shown to it once."""

import pytest

from tests.faults.clients import Ask, Deletion, Talk
from tests.faults.evidence import Held, Message, Stored, apart
from tests.faults.judge import Terms, Verdict, conclude, judge, judge_last

SESSION = "s"


def an_ask(number: int, *, started: float | None = None, machine: int = 0, **fields: object) -> Ask:
    """Return an acknowledged ask: the client's question `number`, answered as a healthy service does."""
    began = float(number) if started is None else started
    body = {"message_id": f"a{number}", "answer": f"answer {number}", "msg_count_before": 2 * (number - 1),
            "context": "full", "store": "redis", "stored_in": ["redis"], "replayed": False}  # fmt: skip
    return Ask(0, SESSION, f"c0 q{number}", None, None, began, began + 0.1, 200, "", body | fields, machine)


def refused(ask: Ask, error: str, seconds: float = 0.1) -> Ask:
    ask.status, ask.error, ask.body, ask.ended = None, error, {}, ask.started + seconds
    return ask


def a_talk(*asks: Ask, deletions: tuple[Deletion, ...] = ()) -> Talk:
    return Talk(0, SESSION, carries=False, keyed=False, asks=list(asks), deletions=list(deletions))


def messages(*numbers: int) -> tuple[Message, ...]:
    return tuple(
        message
        for number in numbers
        for message in (
            {"id": f"q{number}", "content": f"c0 q{number}"},
            {"id": f"a{number}", "content": f"answer {number}"},
        )
    )


def shown_to(talk: Talk, **other: str) -> dict[str, tuple[str, ...]]:
    """Return what each answer was shown: all questions before it, or as `other` says, `a3="12"` the first two."""
    numbers = {one.body["answer"].rpartition(" ")[2]: number for number, one in enumerate(talk.asks) if one.body}
    shown = {word: tuple(one.question for one in talk.asks[:number]) for word, number in numbers.items()}
    return shown | {name[1:]: tuple(f"c0 q{number}" for number in said) for name, said in other.items()}


def verdict_on(talk: Talk, *numbers: int, terms: Terms | None = None, **other: str) -> Verdict:
    terms = terms or Terms(dual_write=False)
    view = {SESSION: Held(messages(*numbers))}
    verdict = judge([talk], {"redis": view}, terms, shown_to(talk, **other))
    conclude(verdict, terms, "")
    return verdict


def test_what_was_acknowledged_and_is_there_breaks_no_promise() -> None:
    verdict = verdict_on(a_talk(an_ask(1), an_ask(2), an_ask(3)), 1, 2, 3)
    assert (verdict.asked, verdict.acknowledged, verdict.broken) == (3, 3, [])


@pytest.mark.parametrize(
    ("there", "broken"),
    [
        ((1, 3), ["lost 1"]),
        ((1, 2, 2, 3), ["doubled 1"]),
        ((1, 3, 2), ["disordered 1"]),
        ((), ["lost 3"]),
    ],
)
def test_a_store_that_holds_anything_else_is_seen(there: tuple[int, ...], broken: list[str]) -> None:
    assert verdict_on(a_talk(an_ask(1), an_ask(2), an_ask(3)), *there).broken == broken


def test_an_answer_that_is_not_the_acknowledged_one_is_a_loss() -> None:
    assert verdict_on(a_talk(an_ask(1, answer="another")), 1).broken == ["lost 1"]


@pytest.mark.parametrize(
    ("numbers", "broken"),
    [
        ("12", ["forgotten 1"]),
        ("13", ["forgotten 1"]),
        ("123", []),
        ("213", ["disordered 1"]),
        ("1223", ["doubled 1"]),
    ],
)
def test_what_an_answer_was_shown_is_compared_with_what_was_acknowledged(numbers: str, broken: list[str]) -> None:
    assert verdict_on(a_talk(*map(an_ask, (1, 2, 3, 4))), 1, 2, 3, 4, a4=numbers).broken == broken


def test_an_answer_that_says_it_is_behind_is_allowed_without_dual_write_alone() -> None:
    talk = a_talk(an_ask(1), an_ask(2, context="behind"))
    assert verdict_on(talk, 1, 2, a2="").broken == []
    assert verdict_on(talk, 1, 2, terms=Terms(dual_write=True), a2="").broken == ["behind 1 with dual write"]


def test_a_row_is_disturbed_only_where_the_other_store_failed_and_every_answer_was_honest() -> None:
    talk, dual_write = a_talk(an_ask(1), an_ask(2, context="behind")), Terms(dual_write=True)
    verdict = verdict_on(talk, 1, 2, terms=dual_write, a2="")
    assert not verdict.disturbed
    verdict.beside = 1
    assert verdict.disturbed
    lost = verdict_on(talk, 1, terms=dual_write, a2="")
    lost.beside = 1
    assert "lost 1" in lost.broken and not lost.disturbed


def test_what_was_deleted_must_not_be_there_and_what_came_later_must() -> None:
    gone = Deletion(SESSION, 2.5, 2.6)
    talk = a_talk(an_ask(1), an_ask(2), an_ask(3), deletions=(gone,))
    assert verdict_on(talk, 3, a3="").broken == []
    assert verdict_on(talk, 2, 3, a3="").broken == ["revived 1"]
    assert verdict_on(talk, a3="").broken == ["lost 1"]
    assert verdict_on(talk, 3, a3="2").broken == ["revived 1"]


def test_what_another_machine_stores_may_not_be_known_until_heartbeats_are_stale() -> None:
    out = Terms(dual_write=True, injecting=0.5, injected=0.6, cut_off=True)
    talk = a_talk(an_ask(1), an_ask(2, machine=1))
    assert verdict_on(talk, 1, 2, terms=out, a2="").broken == []
    talk.asks[1].carried = "a1"
    assert verdict_on(talk, 1, 2, terms=out, a2="").broken == ["forgotten 1"]
    late = a_talk(an_ask(1), an_ask(2, machine=1, started=9.0))
    assert verdict_on(late, 1, 2, terms=out, a2="").broken == ["forgotten 1"]
    late.asks[1].body["context"] = "behind"
    assert verdict_on(late, 1, 2, terms=out, a2="").broken == []


def test_an_error_is_a_broken_promise_unless_a_process_was_killed() -> None:
    talk = a_talk(refused(an_ask(1), "connection RemoteDisconnected"))
    assert verdict_on(talk).broken == ["errors 1"]
    assert verdict_on(talk, terms=Terms(dual_write=False, lost_connections=True)).broken == []


def test_with_both_stores_out_only_a_quick_503_is_right() -> None:
    out = Terms(dual_write=False, injecting=0.5, injected=0.6, ending=9.0, both_out=True)
    assert verdict_on(a_talk(refused(an_ask(1), "503 store_unavailable")), terms=out).broken == []
    assert verdict_on(a_talk(refused(an_ask(1), "503 store_unavailable", 1.5)), terms=out).broken == ["errors 1"]
    assert verdict_on(a_talk(refused(an_ask(1), "500 error")), terms=out).broken == ["errors 1"]
    assert verdict_on(a_talk(an_ask(1)), 1, terms=out).broken == ["errors 1"]
    assert verdict_on(a_talk(refused(an_ask(10), "503 store_unavailable")), terms=out).broken == ["errors 1"]


def test_a_switch_has_two_seconds_to_be_followed() -> None:
    switched = Terms(dual_write=False, switches=[(1.0, "mongo", False)])
    soon, late = an_ask(2), an_ask(3, started=3.5)
    assert verdict_on(a_talk(an_ask(1, started=0.5), soon), 1, 2, terms=switched).broken == []
    assert verdict_on(a_talk(an_ask(1, started=0.5), soon, late), 1, 2, 3, terms=switched).broken == ["astray 1"]


def test_a_request_that_takes_longer_than_two_seconds_is_too_slow() -> None:
    ask = an_ask(1)
    ask.ended = ask.started + 2.1
    assert verdict_on(a_talk(ask), 1).broken == ["slowest 2100 ms"]


def test_after_repair_nothing_may_be_missing_from_an_answer() -> None:
    terms, verdict = Terms(dual_write=False), Verdict()
    talk = a_talk(an_ask(1), an_ask(2), an_ask(3))
    judge_last([talk.asks[-1]], [talk], terms, verdict, shown_to(talk))
    assert verdict.broken == []
    judge_last([talk.asks[-1]], [talk], terms, verdict, shown_to(talk, a3="2"))
    assert verdict.broken == ["after repair something is missing still"]


def test_stores_are_apart_while_a_flag_or_a_message_or_a_tombstone_is_in_one_alone() -> None:
    both, more = Held(messages(1)), Held(messages(1, 2))
    assert apart(Stored({SESSION: both}, {SESSION: both}), "redis", dual_write=True) == ""
    assert apart(Stored({SESSION: both}, {SESSION: both}, flags=1), "redis", dual_write=True)
    assert apart(Stored({SESSION: both}, {SESSION: more}), "redis", dual_write=False)
    assert apart(Stored({SESSION: more}, {SESSION: both}), "redis", dual_write=True)
    assert apart(Stored({SESSION: more}, {SESSION: both}), "redis", dual_write=False) == ""
    assert apart(Stored({SESSION: both}, {SESSION: Held(messages(1), "t")}), "redis", dual_write=False)
