"""Plans that broke a promise once, made smaller: each stays a test.

`python -m tests.simulation` prints a plan that breaks a promise in the form that it has here. Its seed decides only
in which order things happen, so a kept plan is played with that seed and the next ones.
"""

from dataclasses import dataclass

from tests.simulation.plans import Fault, Plan, Request


@dataclass(frozen=True)
class Kept:
    """A plan, and the rule of `breaks.py` that it finds broken; None where it found a fault that is cured."""

    plan: Plan
    rule: str | None = None
    unconfirmed: bool = False
    """Whether it is judged as the plans of `--unconfirmed` are."""


KEPT: dict[str, Kept] = {
    "frozen, then the other out": Kept(
        Plan(
            seed=5060,
            primary="mongo",
            dual_write=True,
            max_turns=3,
            clients=1,
            faults=(
                Fault(at=6.0, kind="freeze", target="redis", seconds=2.8),
                Fault(at=10.6, kind="refuse", target="mongo", seconds=0.2),
            ),
            requests=(
                Request(at=6.0, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=12.5, client=0, kind="ask", machine=0, expecting=False, key=False),
            ),
        ),
    ),
    "applied late, and asked at once": Kept(
        Plan(
            seed=5863,
            primary="redis",
            dual_write=False,
            max_turns=3,
            clients=1,
            faults=(Fault(at=4.3, kind="apply late", target="redis", seconds=1.1),),
            requests=(
                Request(at=2.0, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=5.1, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=5.6, client=0, kind="ask", machine=0, expecting=False, key=False),
            ),
        ),
        "4 flags are not looked at",
    ),
    "rolled back by one turn": Kept(
        Plan(
            seed=5087,
            primary="redis",
            dual_write=True,
            max_turns=16,
            clients=1,
            faults=(Fault(at=4.7, kind="roll back", target="redis", seconds=0.1),),
            requests=(
                Request(at=0.9, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=4.3, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=5.0, client=0, kind="read", machine=0, expecting=False, key=False),
            ),
        ),
        "11 data are always the same",
    ),
    "both applied late": Kept(
        Plan(
            seed=5007,
            primary="mongo",
            dual_write=True,
            max_turns=16,
            clients=1,
            faults=(
                Fault(at=4.0, kind="apply late", target="redis", seconds=5.0),
                Fault(at=4.0, kind="apply late", target="mongo", seconds=5.0),
            ),
            requests=(Request(at=6.6, client=0, kind="ask", machine=0, expecting=False, key=False),),
        ),
        "15 unknown is not stored",
        unconfirmed=True,
    ),
    "switched where a store is slow": Kept(
        Plan(
            seed=1158,
            primary="redis",
            dual_write=False,
            max_turns=16,
            clients=1,
            faults=(
                Fault(at=2.0, kind="slow", target="0 mongo", seconds=8.0),
                Fault(at=5.0, kind="dual write on"),
                Fault(at=11.5, kind="refuse", target="redis", seconds=0.5),
            ),
            requests=(
                Request(at=8.1, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=11.9, client=0, kind="read", machine=0, expecting=False, key=False),
            ),
        ),
    ),
    "lost, deleted, and applied late elsewhere": Kept(
        Plan(
            seed=2,
            primary="mongo",
            dual_write=True,
            max_turns=3,
            clients=1,
            faults=(
                Fault(at=3.9, kind="apply late", target="redis", seconds=1.4),
                Fault(at=5.1, kind="roll back", target="mongo", seconds=0.1),
            ),
            requests=(
                Request(at=1.7, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=4.8, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=6.0, client=0, kind="delete", machine=0, expecting=False, key=False),
                Request(at=8.6, client=0, kind="ask", machine=0, expecting=False, key=False),
            ),
        ),
    ),
    "deleted and asked again in one millisecond": Kept(
        Plan(
            seed=1571778396,
            primary="mongo",
            dual_write=True,
            max_turns=16,
            clients=3,
            faults=(Fault(at=2.7345190137121214, kind="part", target="redis", seconds=9.847741442123041),),
            requests=(
                Request(at=1.0382872437427644, client=2, kind="ask", machine=1, expecting=False, key=False),
                Request(at=1.4823808431479228, client=0, kind="read", machine=1, expecting=False, key=False),
                Request(at=2.689843678058483, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=3.649307331655808, client=2, kind="ask", machine=1, expecting=False, key=False),
                Request(at=4.002649977410752, client=2, kind="ask", machine=1, expecting=False, key=False),
                Request(at=4.338998927328531, client=2, kind="ask", machine=1, expecting=False, key=False),
                Request(at=5.265871808788687, client=2, kind="read", machine=1, expecting=False, key=False),
                Request(at=5.653059825600872, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=6.066014410960517, client=2, kind="ask", machine=1, expecting=False, key=False),
                Request(at=7.550932652720002, client=2, kind="ask", machine=1, expecting=False, key=False),
                Request(at=8.022162152980478, client=2, kind="ask", machine=1, expecting=False, key=False),
                Request(at=8.333604573251984, client=2, kind="ask", machine=1, expecting=False, key=False),
                Request(at=8.409365990668874, client=0, kind="ask", machine=1, expecting=False, key=False),
                Request(at=8.521432970392276, client=0, kind="delete", machine=1, expecting=False, key=False),
                Request(at=8.58295057106518, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=13.18002648914969, client=0, kind="ask", machine=0, expecting=False, key=False),
            ),
        ),
    ),
    "written to one store, which is out when the other is back": Kept(
        Plan(
            seed=2323386168,
            primary="redis",
            dual_write=True,
            max_turns=16,
            clients=1,
            faults=(
                Fault(at=3.2, kind="refuse", target="mongo", seconds=2.0),
                Fault(at=5.0, kind="freeze", target="redis", seconds=3.7),
            ),
            requests=(
                Request(at=4.2, client=0, kind="ask", machine=0, expecting=False, key=False),
                Request(at=7.5, client=0, kind="read", machine=1, expecting=False, key=False),
            ),
        ),
    ),
}
