"""The class queue against a model too simple to be wrong, under any calls.

The model keeps lists and the history of each lane, and works everything out anew each time: who
starts when by fair queueing, who is ahead of whom, whose time is up, who has to make room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.domain.slo import Slo
from router.queue.class_room import ClassRoom, Entry, LaneKey
from tests.fakes import ask

CAPACITY, AGED_AFTER_S, SHARE, MOST_CREDIT_S = 5, 8.0, 0.25, 30.0 * 0.25
LOOK_AHEAD = 8
WEIGHTS = {"gold": 4.0}
SLOS = {"interactive": Slo("interactive", ttft_s=2.0), "bulk": Slo("bulk")}
pick = st.integers(0, 10**6)
WORK = st.sampled_from([0.25, 1.0, 4.0])
"""Sums of these are exact, and so are their quarters."""


@dataclass
class History:
    """What happened in one lane since it was last empty."""

    entered: list[tuple[str, float, float]] = field(default_factory=list)
    """Tenant, start tag, work by weight."""
    sent: list[float] = field(default_factory=list)

    def start(self, tenant: str) -> float:
        """Goyal, Vin, Cheng: after what was sent, and after what the tenant has had."""
        finished = [start + share for who, start, share in self.entered if who == tenant]
        return max([0.0, *self.sent, *finished])


class ClassRoomMachine(RuleBasedStateMachine):
    """Rules are the calls; invariants compare what can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.serial, self.credit_s = 0.0, 0, 0.0
        self.room = ClassRoom(CAPACITY, WEIGHTS, aged_after_s=AGED_AFTER_S, aged_share=SHARE)
        self.waiting: dict[str, Entry] = {}
        self.starts: dict[str, tuple[float, int]] = {}
        self.lanes: dict[LaneKey, History] = {}
        self.sent: list[Entry] = []

    # -- calls -------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 8.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        slo=st.sampled_from(sorted(SLOS)),
        tenant=st.sampled_from(["gold", "a", "b"]),
        model=st.sampled_from(["m", "m", "n"]),
        work_s=WORK,
        urgent=st.booleans(),
        patience_s=st.sampled_from([0.5, 3.0, 20.0, math.inf]),
    )
    def enter(  # noqa: PLR0917
        self, slo: str, tenant: str, model: str, work_s: float, urgent: bool, patience_s: float
    ) -> None:
        self.serial += 1
        name = f"r{self.serial}"
        request = ask(name, model=model, slo_class=slo, tenant=tenant, arrival_s=self.now)
        latest_s = self.now + min(patience_s, 1.0) if urgent else self.now
        due_s = self.now + patience_s
        entry = Entry(request, frozenset(), due_s, SLOS[slo], urgent, latest_s, work_s)
        history = self.lanes.setdefault(entry.lane, History())
        self.starts[name] = (history.start(tenant), self.serial)
        history.entered.append((tenant, history.start(tenant), work_s / WEIGHTS.get(tenant, 1.0)))
        self._enter(entry)

    @precondition(lambda self: self.sent)
    @rule(which=pick)
    def come_back(self, which: int) -> None:
        """It was taken back from a backend: it has its old place, whatever came meanwhile.

        In a lane that was empty since, whose time began anew, that is the first.
        """
        entry = self.sent.pop(which % len(self.sent))
        history, name = self.lanes.setdefault(entry.lane, History()), entry.request.request_id
        start, number = self.starts[name]
        self.starts[name] = (min(start, max([0.0, *history.sent])), number)
        self.serial += 1
        self._enter(entry)

    def _enter(self, entry: Entry) -> None:
        self.room.enter(entry)
        self.waiting[entry.request.request_id] = entry

    @rule(which=pick)
    def leave(self, which: int) -> None:
        """Cancelled; or it never was here."""
        name = f"r{which % (self.serial + 2)}"
        assert (self.room.leave(name) is not None) is (name in self.waiting)
        self._left(name, sent=False)

    @precondition(lambda self: self.waiting)
    @rule()
    def serve(self) -> None:
        """Whoever's turn it is goes; the others' credit follows."""
        entry = self.room.turns(self.now).next()
        assert entry is not None
        assert entry is min(self._heads(), key=self._rank) or self._tied(entry)
        was_aged = self._aged(entry)
        self.room.leave(entry.request.request_id, sent=True)
        self._left(entry.request.request_id, sent=True)
        self.sent.append(entry)
        self.room.paid(entry, self.now)
        earned = SHARE * entry.work_s - (entry.work_s if was_aged else 0.0)
        self.credit_s = min(max(self.credit_s + earned, -MOST_CREDIT_S), MOST_CREDIT_S)

    @rule()
    def expire(self) -> None:
        gone = self.room.expired(self.now)
        due = [name for name, e in self.waiting.items() if e.deadline_s <= self.now]
        assert sorted(e.request.request_id for e in gone) == sorted(due)
        deadlines = [e.deadline_s for e in gone]
        assert deadlines == sorted(deadlines)
        for name in due:
            self.room.leave(name)
            self._left(name, sent=False)

    @rule()
    def ask_everybody(self) -> None:
        """Nobody can be sent: of each lane the first few are asked, best rank first."""
        turns, asked = self.room.turns(self.now), list[Entry]()
        while (entry := turns.next()) is not None:
            asked.append(entry)
            turns.stays(entry)
        for key in self.lanes:
            here = [e for e in asked if e.lane == key]
            assert here == self._in_order(key)[:LOOK_AHEAD]

    def _left(self, name: str, *, sent: bool) -> None:
        entry = self.waiting.pop(name, None)
        if entry is None:
            return
        if sent:
            self.lanes[entry.lane].sent.append(self.starts[name][0])
        if not self._in_order(entry.lane):
            del self.lanes[entry.lane]

    # -- what the model knows ----------------------------------------------------------------

    def _in_order(self, key: LaneKey) -> list[Entry]:
        here = [e for e in self.waiting.values() if e.lane == key]
        return sorted(here, key=lambda e: self.starts[e.request.request_id])

    def _heads(self) -> list[Entry]:
        return [self._in_order(key)[0] for key in self.lanes]

    def _aged(self, entry: Entry) -> bool:
        return not entry.urgent and self.now - entry.request.arrival_s >= AGED_AFTER_S

    def _rank(self, entry: Entry) -> tuple[int, float]:
        if entry.urgent:
            return 1, entry.latest_start_s
        old = self._aged(entry) and self.credit_s > 0.0
        return (0 if old else 2), entry.request.arrival_s

    def _tied(self, entry: Entry) -> bool:
        heads = self._heads()
        return entry in heads and self._rank(entry) == min(map(self._rank, heads))

    # -- what must be true -------------------------------------------------------------------

    @invariant()
    def the_same_wait(self) -> None:
        room, waiting = self.room, self.waiting
        assert len(room) == len(waiting)
        assert [e.request.request_id for e in room] == list(waiting)
        assert all(name in room and room.get(name) is e for name, e in waiting.items())
        assert set(room.lanes) == set(self.lanes), "names that clients invent are not kept"
        assert room.full is (len(waiting) >= CAPACITY)
        assert room.credit_s == self.credit_s
        due_s = min((e.deadline_s for e in waiting.values()), default=math.inf)
        assert room.next_deadline_s() == due_s

    @invariant()
    def lanes_are_fair(self) -> None:
        for key, lane in self.room.lanes.items():
            here = self._in_order(key)
            assert [e for _, e in lane.entries] == here
            assert [e.tag[0] for e in here] == [self.starts[e.request.request_id][0] for e in here]
            assert lane.work_s == sum(e.work_s for e in here)
            for tenant in ("gold", "a", "b", "new"):
                mine = sum(e.work_s for e in here if e.request.tenant == tenant)
                assert lane.backlog_s.get(tenant, 0.0) == mine
                assert lane.ahead_s(tenant, 1.0, WEIGHTS) == self._ahead_s(here, tenant, mine)

    @staticmethod
    def _ahead_s(here: list[Entry], tenant: str, mine: float) -> float:
        """Everybody else's work, up to their share of the time that the tenant's own takes."""
        own_turns = (mine + 1.0) / WEIGHTS.get(tenant, 1.0)
        others = {e.request.tenant for e in here} - {tenant}
        theirs = {t: sum(e.work_s for e in here if e.request.tenant == t) for t in others}
        return mine + sum(min(w, own_turns * WEIGHTS.get(t, 1.0)) for t, w in theirs.items())

    @invariant()
    def the_last_of_the_idle_make_room(self) -> None:
        over = len(self.waiting) - CAPACITY
        idle = [e for e in self.waiting.values() if not e.urgent]
        idle.sort(key=lambda e: self.starts[e.request.request_id][1], reverse=True)
        assert self.room.surplus() == (idle[:over] if over > 0 else [])


TestClassRoom = ClassRoomMachine.TestCase
TestClassRoom.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow],
)


@given(
    gold=st.lists(WORK, min_size=10, max_size=30),
    other=st.lists(WORK, min_size=10, max_size=30),
    weight=st.sampled_from([1.0, 2.0, 4.0]),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_two_who_both_wait_get_their_shares_to_within_a_request_each(
    gold: list[float], other: list[float], weight: float
) -> None:
    """The theorem of start-time fair queueing, over every interval in which both wait."""
    room = ClassRoom(1_000, {"gold": weight})
    for tenant, works in (("gold", gold), ("other", other)):
        for n, work_s in enumerate(works):
            request = ask(f"{tenant}{n}", slo_class="bulk", tenant=tenant)
            base = Entry(request, frozenset(), math.inf, SLOS["bulk"], False, 0.0, work_s)
            room.enter(replace(base))
    bound = max(gold) / weight + max(other)
    had, lead = {"gold": 0.0, "other": 0.0}, [0.0]
    while all(lane.backlog_s.keys() == had.keys() for lane in room.lanes.values()) and len(room):
        entry = room.turns(0.0).next()
        assert entry is not None
        room.leave(entry.request.request_id, sent=True)
        had[entry.request.tenant] += entry.work_s
        lead.append(had["gold"] / weight - had["other"])
    assert max(lead) - min(lead) <= bound
