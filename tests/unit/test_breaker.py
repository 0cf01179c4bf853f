"""The breaker on a simulated clock."""

from hypothesis import given
from hypothesis import strategies as st

from conversations.breaker import CLOSED, HALF_OPEN, OPEN, OPEN_FOR, RECOVERY, TRIPS, WINDOW, Breaker


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def a_breaker(clock: Clock, open_for: float = 3.0) -> Breaker:
    return Breaker(slow=0.1, clock=clock, jitter=lambda low, high: open_for)


def opened(clock: Clock) -> Breaker:
    breaker = a_breaker(clock)
    for _ in range(TRIPS):
        breaker.record(failed=True)
    return breaker


def test_three_failures_open_it() -> None:
    clock = Clock()
    breaker = a_breaker(clock)
    for _ in range(TRIPS - 1):
        breaker.record(failed=True)
        assert breaker.allows()
    breaker.record(failed=True)
    assert not breaker.allows()
    assert breaker.state == OPEN


def test_a_success_between_failures_does_not_reset_the_count() -> None:
    breaker = a_breaker(Clock())
    for _ in range(TRIPS):
        breaker.record(failed=False)
        breaker.record(failed=True)
    assert breaker.state == OPEN


def test_old_failures_do_not_count() -> None:
    clock = Clock()
    breaker = a_breaker(clock)
    for _ in range(TRIPS * 2):
        breaker.record(failed=True)
        clock.time += WINDOW / (TRIPS - 1) + 0.1
    assert breaker.state == CLOSED


def test_slow_calls_count_like_failures() -> None:
    breaker = a_breaker(Clock())
    for _ in range(TRIPS):
        breaker.record(failed=False, seconds=0.11)
    assert breaker.state == OPEN


def test_one_probe_is_allowed_and_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert not breaker.probe()
    clock.time += 3.0
    assert breaker.state == HALF_OPEN
    assert [breaker.probe(), breaker.probe(), breaker.allows()] == [True, False, False]
    breaker.record(failed=False)
    assert breaker.state == CLOSED
    assert breaker.allows()


def test_its_pause_can_be_ended_and_a_probe_decides_then() -> None:
    breaker = opened(Clock())
    breaker.end_pause()
    assert not breaker.allows()
    assert breaker.probe()
    breaker.record(failed=True)
    assert breaker.state == OPEN
    breaker.end_pause()
    assert breaker.probe()
    breaker.record(failed=False)
    breaker.end_pause()
    assert breaker.state == CLOSED


def test_it_is_recovering_while_another_process_may_be_open() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert not breaker.recovering
    clock.time += 3.0
    breaker.probe()
    breaker.record(failed=False)
    assert breaker.recovering
    clock.time += RECOVERY
    assert not breaker.recovering


def is_calm(breaker: Breaker) -> bool:
    return breaker.allows() and not breaker.recovering


def test_no_thread_finds_it_calm_on_its_way_to_open_or_to_recover() -> None:
    """What a thread finds while another one changes it is kept for as long as `opened` stays the same."""
    seen: list[tuple[int, bool]] = []

    class Watched(Breaker):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if "_closed_at" in vars(self):
                seen.append((self.opened, is_calm(self)))

    clock = Clock()
    breaker = Watched(1.0, clock, lambda low, high: low)
    seen.clear()
    breaker.trip()
    assert (1, True) not in seen
    clock.time += 3.0
    breaker.probe()
    seen.clear()
    breaker.record(failed=False)
    assert {calm for _, calm in seen} == {False}


def test_a_thread_that_looks_late_forgets_no_closing() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.time += 3.0
    breaker.probe()
    breaker.record(failed=False)

    def late() -> float:
        breaker._clock = clock  # this look only
        breaker.trip()
        clock.time += 6.0
        breaker.probe()
        breaker.record(failed=False)
        return clock.time + RECOVERY  # when the look began, the closing before was forgotten

    clock.time += RECOVERY
    breaker._clock = late
    assert not breaker.recovering  # of the closing before
    assert breaker.recovering
    assert not is_calm(breaker)


def test_a_failed_or_slow_probe_opens_it_again() -> None:
    for failed, seconds in ((True, 0.0), (False, 0.2)):
        clock = Clock()
        breaker = opened(clock)
        clock.time += 3.0
        assert breaker.probe()
        breaker.record(failed, seconds)
        assert breaker.state == OPEN


def test_a_probe_that_never_reports_does_not_hold_it_open_for_ever() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.time += 3.0
    assert breaker.probe()
    clock.time += OPEN_FOR[1] + 1
    assert breaker.probe()


def test_calls_begun_before_it_opened_change_nothing() -> None:
    breaker = opened(Clock())
    breaker.record(failed=False)
    assert breaker.state == OPEN


def test_a_second_trip_does_not_lengthen_the_first() -> None:
    clock = Clock()
    breaker = a_breaker(clock)
    breaker.trip()
    clock.time += 2.9
    breaker.trip()
    clock.time += 0.2
    assert breaker.state == HALF_OPEN


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "slow", "probe", "trip"]), st.floats(0, 6)), max_size=60))
def test_it_always_allows_a_probe_in_the_end(steps: list[tuple[str, float]]) -> None:
    """It is never open for longer than the longest pause, and a successful probe always closes it."""
    clock = Clock()
    breaker = Breaker(slow=0.1, clock=clock)
    for what, pause in steps:
        if what == "probe":
            breaker.probe()
        elif what == "trip":
            breaker.trip()
        else:
            breaker.record(what == "fail", 0.2 if what == "slow" else 0.0)
        clock.time += pause
    clock.time += OPEN_FOR[1] + 0.01
    assert breaker.state in (CLOSED, HALF_OPEN)
    clock.time += OPEN_FOR[1] + 0.01
    assert breaker.probe()
    breaker.record(failed=False)
    assert breaker.allows()
