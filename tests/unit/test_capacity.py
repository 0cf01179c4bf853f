"""The model of `manage.py capacity`: it grows with what is asked of it, and agrees with what was measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from conversations.turns import Limits
from ops.capacity.measured import FIGURES, HTTP_ASKS
from ops.capacity.plan import Demand, Node, allocated, foresee, mongo_bytes, redis_bytes, stored_bytes

ROOT = Path(__file__).parents[2]
LIMITS = Limits(ttl=2_592_000, max_turns=16, max_bytes=262_144)
SMALL = Demand(1_000_000, 1000.0, messages=2, bytes_per_message=172)
FOUR_KB = Demand(100_000, 100.0, messages=16, bytes_per_message=257)
FULL = Demand(10_000, 100.0, messages=32, bytes_per_message=197)


@pytest.mark.parametrize("size, class_", [(1, 16), (16, 16), (17, 32), (128, 128), (129, 160), (351, 384), (1006, 1024),
                                          (4110, 5120), (5120, 5120), (6310, 7168), (20_006, 20_480)])  # fmt: skip
def test_sizes_are_those_that_jemalloc_gives(size: int, class_: int) -> None:
    assert allocated(size) == class_


# What docs/capacity.md and docs/performance.json say was measured, and by how much the model may be off.
MEASURED = [
    (SMALL, redis_bytes, 639, 0.05),  # 1,000,000 of 345 bytes, with their list
    (FOUR_KB, redis_bytes, 5_240 + 128, 0.05),
    (FULL, redis_bytes, 8_198 + 128, 0.25),  # their APPENDs leave up to half of them unused: planned with the most
    (FOUR_KB, mongo_bytes, 9_200, 0.1),
    (SMALL, mongo_bytes, 1_103, 0.1),
]


@pytest.mark.parametrize(("demand", "model", "measured", "off"), MEASURED)
def test_the_model_agrees_with_what_was_measured(demand, model, measured, off) -> None:  # type: ignore[no-untyped-def]
    assert model(demand, LIMITS) == pytest.approx(measured, rel=off)


@pytest.mark.parametrize("grown", [
    {"conversations": 2_000_000_000}, {"asks_per_second": 200_000.0}, {"messages": 30}, {"bytes_per_message": 2000},
])  # fmt: skip
def test_more_never_needs_less(grown: dict[str, float]) -> None:
    less, more = Demand(1_000_000_000, 100_000.0), replace(Demand(1_000_000_000, 100_000.0), **grown)  # type: ignore[arg-type]
    before, after = foresee(less, Node(), LIMITS), foresee(more, Node(), LIMITS)
    assert after.redis_bytes >= before.redis_bytes
    assert after.mongo_bytes >= before.mongo_bytes
    assert after.processes >= before.processes
    for kind in ("redis", "mongo", "service"):
        assert getattr(after, kind).servers >= getattr(before, kind).servers
    assert (after.redis_bytes, after.processes) != (before.redis_bytes, before.processes)


@pytest.mark.parametrize("power", range(13))
def test_each_power_of_ten_fits_its_nodes_and_needs_no_less_than_the_one_before(power: int) -> None:
    plans = [foresee(Demand(10**n, float(10 ** (n // 2))), Node(), LIMITS) for n in (max(power - 1, 0), power)]
    assert plans[0].redis_bytes <= plans[1].redis_bytes
    assert plans[0].redis.servers <= plans[1].redis.servers
    for nodes in (plans[1].redis, plans[1].mongo, plans[1].service):
        assert nodes.fullest.used <= 1


def test_of_a_long_conversation_only_the_window_is_kept() -> None:
    assert stored_bytes(Demand(1, 1.0, messages=1000, bytes_per_message=100), LIMITS) == 3200
    assert stored_bytes(Demand(1, 1.0, messages=32, bytes_per_message=100_000), LIMITS) == 262_144
    assert stored_bytes(Demand(1, 1.0, messages=2, bytes_per_message=300_000), LIMITS) == 600_000, "one turn stays"


def test_one_redis_does_until_its_memory_is_full_then_a_cluster_of_at_least_three() -> None:
    def redis(conversations: int) -> tuple[int, int]:
        found = foresee(Demand(conversations, 1.0), Node(), LIMITS).redis
        return found.number, found.servers

    assert redis(5_000_000) == (1, 3)
    assert redis(7_000_000) == (3, 6)


def test_what_ends_first_is_what_is_used_most() -> None:
    plan = foresee(Demand(1_000_000_000, 100_000.0), Node(), LIMITS)
    assert [share.used for share in plan.shares] == sorted((share.used for share in plan.shares), reverse=True)
    assert "scrub" in plan.shares[0].what
    one_key = next(share for share in plan.limits if "list of a tenant" in share.what)
    assert one_key.used > 1
    many = foresee(Demand(1_000_000_000, 100_000.0, tenants=1000), Node(), LIMITS)
    assert next(share for share in many.limits if "list of a tenant" in share.what).used < 1


def test_the_table_of_the_figures_is_the_documents() -> None:
    table = (ROOT / "docs" / "capacity.md").read_text()
    for figure in FIGURES:
        assert f"| {figure.what} | {figure.value:,g} {figure.unit}".rstrip() + f" | {figure.source} |" in table


def test_asks_over_http_are_those_of_the_performance_page() -> None:
    import json

    measured = json.loads((ROOT / "docs" / "performance.json").read_text())
    assert measured["http"]["16"]["onesource"]["requests_per_second"] == pytest.approx(HTTP_ASKS.value, rel=0.01)
