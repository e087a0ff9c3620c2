"""What counts as an event."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from router.gateway.dashboard.changes import Changes
from router.gateway.dashboard.views import BackendTile, PlanView

NO_PLAN = PlanView(enabled=False)


@dataclass
class Story:
    """A fleet that changes from tick to tick."""

    changes: Changes = field(default_factory=Changes)
    at: float = 0.0

    def tick(
        self, *tiles: BackendTile, plan: PlanView = NO_PLAN, policy: str = "motley"
    ) -> list[tuple[str, str, str]]:
        """What is new after this tick, oldest first."""
        before = {event.number for event in self.changes.events}
        self.at += 1.0
        self.changes.compare(tiles, plan, policy, self.at)
        fresh = [event for event in self.changes.events if event.number not in before]
        return [(event.severity, event.subject, event.text) for event in reversed(fresh)]


def tile(name: str, state: str = "up", **phases: float) -> BackendTile:
    blank = dict.fromkeys(BackendTile.__struct_fields__)
    known = {
        "name": name,
        "state": state,
        "degraded": tuple(sorted(phases.items())),
    }
    return BackendTile(**(blank | known))  # type: ignore[arg-type]


def test_the_first_tick_tells_nothing() -> None:
    assert Story().tick(tile("a"), tile("b", "down")) == []


def test_states_are_told_once_each_way() -> None:
    story = Story()
    story.tick(tile("a"))
    assert story.tick(tile("a", "open")) == [
        ("bad", "a", "is cut off: its breaker is open"),
    ]
    assert story.tick(tile("a", "open")) == []
    assert story.tick(tile("a", "half_open"))[0][0] == "warn"
    assert story.tick(tile("a")) == [("good", "a", "is up again")]


def test_joining_and_leaving() -> None:
    story = Story()
    story.tick(tile("a"))
    assert story.tick(tile("a"), tile("b")) == [("info", "b", "joined the fleet")]
    assert story.tick(tile("b")) == [("info", "a", "left the fleet")]


def test_a_throttled_card_is_told_with_phase_and_size_and_so_is_its_recovery() -> None:
    story = Story()
    story.tick(tile("t4-0"))
    assert story.tick(tile("t4-0", decode=2.0)) == [
        ("bad", "t4-0", "decode takes 2.00 times as long as when new")
    ]
    assert story.tick(tile("t4-0", decode=2.1)) == []  # no news
    assert story.tick(tile("t4-0", decode=3.0))[0][0] == "bad"
    assert story.tick(tile("t4-0", decode=1.16)) == [
        ("good", "t4-0", "decode is down to 1.16 times its time")
    ]


def test_a_failed_round_of_the_planner_and_a_new_policy_are_told() -> None:
    story = Story()
    story.tick(tile("a"))
    failed = PlanView(enabled=True, failures=1, last_failure="no stock")
    assert story.tick(tile("a"), plan=failed) == [("warn", "planner", "a round failed: no stock")]
    assert story.tick(tile("a"), plan=failed, policy="lmetric") == [
        ("info", "policy", "changed from motley to lmetric")
    ]


def test_memory_is_bounded() -> None:
    story = Story()
    for n in range(1000):
        story.tick(tile("a", "up" if n % 2 else "down"))
    assert len(story.changes.events) == 100
    assert len(msgspec.json.encode(story.changes.events)) < 20_000
