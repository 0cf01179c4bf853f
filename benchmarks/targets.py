"""What onesource wants to reach in one run, and whether it does."""

from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import FLOOR

PEERS = ("llama-index", "langchain-community", "openai-agents", "agno")
OURS = "onesource"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Target:
    name: str
    measured: float
    limit: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit

    def cells(self) -> tuple[str, str, float, str]:
        sign = "≤" if self.at_most else "≥"
        return (self.name, f"{sign} {self.limit:g}", self.measured, "met" if self.met else "missed")


def judged(figures: Figures) -> list[Target]:
    """Return the targets of the parts that were measured."""
    found: list[Target] = []
    if turns := figures.get("turns"):
        ours = turns[OURS]
        found += [
            Target("turn, p50 × floor", ours["p50_ratio"], 1.1),
            Target("turn, p95 × floor", ours["p95_ratio"], 1.2),
            Target("turn, p50 of the fastest peer × ours", _ahead(turns, "p50_ratio"), 2.5, at_most=False),
        ]
    if growth := figures.get("growth"):
        found += [
            Target("turn, 1,000 messages × 40 messages", growth[OURS]["1000"] / growth[OURS]["40"], 3),
            Target("turn, 1,000 messages × 40 messages, mean", growth[OURS]["mean_growth"], 3),
        ]
    for where, races in figures.get("clients", {}).items():
        ratio = races[OURS]["ratio"]
        fastest = max(races[peer]["ratio"] for peer in PEERS)
        found += [
            Target(f"16 clients, {where}, turns/s × floor", ratio, 0.9, at_most=False),
            Target(f"16 clients, {where}, turns/s × the fastest peer", ratio / fastest, 4, at_most=False),
        ]
    if append := figures.get("append"):
        found.append(Target("append inside Redis × the floor's script", append["ratio"], 0.6))
    if dual := figures.get("dual"):
        found.append(Target("dual write, p50 × its slower store alone", dual["dual write"]["p50_ratio"], 1.2))
    if distant := figures.get("distant"):
        name = "dual write, both stores 20 ms away × its slower store"
        found.append(Target(name, distant["dual write"]["p50_ratio"], 1.2))
    if memory := figures.get("memory"):
        found.append(Target("Redis, MB for 10,000 conversations of 16 turns", memory["bytes_of_10000"] / 1e6, 100))
    return found + _over_http(figures)


def _ahead(turns: Figures, name: str) -> float:
    return float(min(turns[peer][name] for peer in PEERS) / turns[OURS][name])


def _over_http(figures: Figures) -> list[Target]:
    found: list[Target] = []
    for number, servers in figures.get("http", {}).items():
        ours = servers[OURS]
        if int(number) < 500:
            found.append(
                Target(f"HTTP, {number} connections, requests/s × {FLOOR}'s", ours["ratio"], 0.8, at_most=False)
            )
        else:
            found += [
                Target(f"HTTP, {number} connections, answers other than 200", float(ours["not_200"]), 0),
                Target(f"HTTP, {number} connections, p99 × p50", ours["p99_ms"] / ours["p50_ms"], 10),
            ]
    if waiting := figures.get("waiting"):
        name = "HTTP, 500 connections, answers of 1 s"
        found += [
            Target(f"{name}, answers other than 200", float(waiting[OURS]["not_200"]), 0),
            Target(f"{name}, p95 in s", waiting[OURS]["p95_ms"] / 1000, 1.6),
        ]
    return found
