"""Breaker, queue and prefix index against models too simple to be wrong, under any calls.

The dispatcher has a machine of its own in ``test_dispatcher_machine``.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.health.breaker import NO_PROBE, BreakerConfig, CircuitBreaker
from router.policies.prefix_index import PrefixIndex
from router.queue.waiting_room import WaitingRoom
from tests.fakes import ask

QUICK = settings(
    max_examples=40,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow],
)
CONFIG = BreakerConfig(failure_threshold=2, open_s=2.0, max_open_s=7.0)


class BreakerMachine(RuleBasedStateMachine):
    """The model keeps the whole history of what was heard, and decides from it anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = CircuitBreaker(CONFIG)
        self.heard: list[str] = []
        """Since the last whole answer: "fail", or "began" for a probe's first token."""
        self.opened_s = math.inf
        self.open_for_s = 0.0
        self.state = "closed"
        self.probe = NO_PROBE
        self.old_probes: list[int] = []

    @rule(seconds=st.sampled_from([0.0, 0.5, 2.0, 4.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.breaker.tick(self.now)
        if self.state == "open" and self.now >= self.opened_s + self.open_for_s:
            self.state = "half_open"

    @precondition(lambda self: self.breaker.allows())
    @rule()
    def send(self) -> None:
        number = self.breaker.sent()
        assert (number != NO_PROBE) is (self.state == "half_open")
        if number:
            assert number not in self.old_probes, "no two probes share a number"
            self.old_probes.append(number)
            self.probe = number

    def _open(self, *, again: bool) -> None:
        self.open_for_s = min(self.open_for_s * 2, CONFIG.max_open_s) if again else CONFIG.open_s
        self.opened_s, self.state, self.probe = self.now, "open", NO_PROBE

    @rule(old=st.booleans())
    def fail(self, old: bool) -> None:
        """An ordinary request fails, or the probe does."""
        probe = NO_PROBE if old else self.probe
        self.breaker.failed(self.now, probe)
        if self.state == "closed":
            self.heard.append("fail")
            failures = self.heard.count("fail")
            on_trial = "began" in self.heard
            if failures >= (1 if on_trial else CONFIG.failure_threshold):
                self._open(again=on_trial)
                self.heard = []
        elif probe and probe == self.probe:
            self._open(again=True)

    @rule(old=st.booleans())
    def succeed(self, old: bool) -> None:
        probe = NO_PROBE if old else self.probe
        self.breaker.succeeded(probe)
        if self.state == "closed" or (probe and probe == self.probe):
            self.heard, self.state, self.probe = [], "closed", NO_PROBE

    @precondition(lambda self: self.probe)
    @rule()
    def probe_begins(self) -> None:
        self.breaker.began(self.probe)
        self.heard, self.state, self.probe = ["began"], "closed", NO_PROBE

    @precondition(lambda self: self.old_probes)
    @rule(which=st.integers(0, 10**6))
    def abandon(self, which: int) -> None:
        probe = self.old_probes[which % len(self.old_probes)]
        self.breaker.abandoned(probe)
        if probe == self.probe:
            self.probe = NO_PROBE

    @precondition(lambda self: self.old_probes)
    @rule(which=st.integers(0, 10**6), how=st.sampled_from(["failed", "succeeded", "began"]))
    def an_old_probe_speaks(self, which: int, how: str) -> None:
        probe = self.old_probes[which % len(self.old_probes)]
        if probe == self.probe or self.state == "closed":
            return
        if how == "failed":
            self.breaker.failed(self.now, probe)
        else:
            getattr(self.breaker, how)(probe)

    @invariant()
    def they_agree(self) -> None:
        assert self.breaker.state == self.state
        waits = self.state == "half_open" and self.probe != NO_PROBE
        assert self.breaker.allows() is (self.state != "open" and not waits)
        due_s = self.opened_s + self.open_for_s if self.state == "open" else math.inf
        assert self.breaker.half_opens_s == due_s


BLOCK, CAPACITY = 16, 160
NAMES = st.sampled_from("ab")
PROMPTS = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(
    lambda words: tuple(hash(tuple(words[: n + 1])) for n in range(len(words)))
)
"""Chained hashes: a block's hash stands for everything before it."""


class PrefixMachine(RuleBasedStateMachine):
    """The model is one ordered dictionary a backend, oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex(CAPACITY)
        self.model: dict[str, OrderedDict[int, None]] = {n: OrderedDict() for n in "ab"}

    @rule(name=NAMES, prompt=PROMPTS)
    def insert(self, name: str, prompt: tuple[int, ...]) -> None:
        self.index.insert(name, prompt, BLOCK)
        cache = self.model[name]
        for block in reversed(prompt):
            cache.pop(block, None)
            cache[block] = None
        while len(cache) * BLOCK > CAPACITY:
            cache.popitem(last=False)

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        self.index.forget(name)
        self.model[name].clear()

    @rule(name=NAMES, prompt=PROMPTS)
    def match(self, name: str, prompt: tuple[int, ...]) -> None:
        matched = 0
        while matched < len(prompt) and prompt[matched] in self.model[name]:
            matched += 1
        assert self.index.matched_tokens(name, prompt, BLOCK) == matched * BLOCK

    @rule(prompt=PROMPTS)
    def who_holds_it(self, prompt: tuple[int, ...]) -> None:
        holds = {name for name, cache in self.model.items() if prompt[0] in cache}
        assert self.index.holders(prompt) == holds

    @invariant()
    def nothing_is_kept_for_nobody(self) -> None:
        assert all(self.index._holders.values())
        for name, cache in self.model.items():
            assert self.index._tokens.get(name, 0) == len(cache) * BLOCK


class RoomMachine(RuleBasedStateMachine):
    """The model is a list of (name, deadline)."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.serial = 0.0, 0
        self.room = WaitingRoom(3, 10.0)
        self.model: list[tuple[str, float]] = []

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.room.full)
    @rule()
    def enter(self) -> None:
        self.serial += 1
        name = f"r{self.serial}"
        self.room.enter(ask(name), frozenset(), self.now)
        self.model.append((name, self.now + 10.0))

    @rule(which=st.integers(0, 5))
    def leave(self, which: int) -> None:
        name = f"r{self.serial - which}"
        left = self.room.leave(name)
        was = [entry for entry in self.model if entry[0] == name]
        assert (left is not None) is bool(was)
        self.model = [entry for entry in self.model if entry[0] != name]

    @invariant()
    def they_agree(self) -> None:
        assert [(e.request.request_id, e.deadline_s) for e in self.room] == self.model
        assert len(self.room) == len(self.model)
        assert self.room.full is (len(self.model) >= 3)
        assert all(name in self.room for name, _ in self.model)
        expected = min((due for _, due in self.model), default=math.inf)
        assert self.room.next_deadline_s() == expected


TestBreaker = BreakerMachine.TestCase
TestPrefixIndex = PrefixMachine.TestCase
TestWaitingRoom = RoomMachine.TestCase
for case in (TestBreaker, TestPrefixIndex, TestWaitingRoom):
    case.settings = QUICK
