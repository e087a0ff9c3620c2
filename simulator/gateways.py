"""The gateway replicas of a replay: their dispatchers, and what keeps those informed.

Each replica has its own dispatcher, feedback and planner and knows only the requests that came
to it; of the others' it learns nothing but what the engines' own metrics show, a scrape later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from router.config.build import Belief, build_dispatcher
from router.config.load import MotleyConfig
from router.decision_log import Sink
from router.dispatcher import Dispatcher
from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome
from router.domain.protocols import LengthPredictor, Observer, Planner
from router.domain.state import EngineSignals, LinearCost
from router.fleet_state.sharing import added, own_loads
from router.perf.length import BucketLengthPredictor
from router.policies.registry import BLIND_TO_SPEED, polls_every_s
from simulator.belief import make_predictor
from simulator.options import ReplayOptions
from simulator.processes import EngineProcess, SimClock
from simulator.traces.columns import Trace
from solver.triggers import TICK_S, Triggers, serving
from telemetry import learning
from telemetry.feedback import Feedback
from telemetry.learned import Learned

Look = Callable[[float], None]
"""Decides queued requests, at a time."""
Costs = Callable[[BackendSpec], LinearCost]
MakePlanner = Callable[[MotleyConfig, Costs], Planner]
"""Builds a planner from the settings and from what a router believes of each backend now."""

AWAY_S = 60.0
"""A simulated restart takes so long."""
_SEED_STEP = 1_000_003


class Demand:
    """Remembers the outcomes of a sliding window, for the planner."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._outcomes: deque[Outcome] = deque()

    def observe(self, outcome: Outcome) -> None:
        """Keep one outcome, forget the old ones."""
        outcomes = self._outcomes
        outcomes.append(outcome)
        oldest = outcome.finished_s - self._window_s
        while outcomes[0].finished_s < oldest:
            outcomes.popleft()

    def recent(self) -> list[Outcome]:
        """The outcomes in the window, oldest first."""
        return list(self._outcomes)


@dataclass(slots=True)
class Gateway:
    """One gateway replica."""

    dispatcher: Dispatcher
    feedback: Feedback | None
    demand: Demand | None
    planner: Planner | None
    triggers: Triggers
    predictor: LengthPredictor

    def recall(self, learned: Learned, policy: str) -> None:
        """Begin with what was learned before; the predictor has its part already."""
        known = learned.policies.get(policy)
        if known:
            self.dispatcher.recall(known, 0.0)
        if self.feedback is not None and learned.origin == "simulation":
            self.feedback.restore(learned.speeds, AWAY_S, 0.0)
            self.correct(0.0)

    def correct(self, now: float) -> None:
        """Bring what was learned of speeds into the policy's belief."""
        if self.feedback is not None:
            for name, (prefill, decode) in self.feedback.changes().items():
                self.dispatcher.correct(name, prefill=prefill, decode=decode, now=now)


class Gateways:
    """All gateway replicas, and the periodic calls that inform them.

    Args:
        members: the replicas.
        options: intervals and delays.
        config: of the fleet file, for its policy's own polling interval and health checks.
    """

    def __init__(
        self, members: Sequence[Gateway], options: ReplayOptions, config: MotleyConfig
    ) -> None:
        self._members = tuple(members)
        self._options = options
        self._reliability = config.reliability
        self._policy = config.policy.name
        self._plan_interval_s = config.planner.interval_s
        self._scrape_interval_s = polls_every_s(config.policy.name, options.scrape_interval_s)
        self.dispatchers = tuple(member.dispatcher for member in members)
        self._failures: dict[str, int] = {}

    def start(
        self, clock: SimClock, engines: Sequence[EngineProcess], look: Look, *, probe: bool
    ) -> None:
        """Set the periodic calls going.

        Args:
            clock: the virtual clock.
            engines: all backends, joined or not.
            look: decides queued requests.
            probe: whether backends can fall ill, so that health checks are worth their time.
        """
        options = self._options
        if options.scrape_interval_s > 0 and not options.oracle:
            clock.every(
                self._scrape_interval_s, lambda now: self._scrape(clock, engines, look, now)
            )
        if options.shared_every_s > 0 and len(self.dispatchers) > 1:
            clock.every(options.shared_every_s, lambda now: self._share(look, now))
        if any(member.feedback is not None for member in self._members):
            clock.every(options.feedback_interval_s, self._correct)
        if any(member.planner is not None for member in self._members):
            clock.every(min(TICK_S, self._plan_interval_s), self._plan)
        if probe:
            clock.every(
                self._reliability.health_interval_s, lambda now: self._probe(engines, look, now)
            )

    def refresh(self, dispatcher: Dispatcher, engines: Sequence[EngineProcess], now: float) -> None:
        """Tell one dispatcher the state of every engine as it is this instant (oracle runs)."""
        for engine in engines:
            if engine.responsive:
                dispatcher.scrape(engine.spec.name, engine.snapshot(now), now)

    # -- periodic ----------------------------------------------------------------------------

    def _scrape(
        self, clock: SimClock, engines: Sequence[EngineProcess], look: Look, now: float
    ) -> None:
        read = [(e.spec.name, e.snapshot(now)) for e in engines if e.responsive]
        if self._options.telemetry_delay_s > 0:
            known = partial(self._know, read, look)
            clock.call_at(now + self._options.telemetry_delay_s, known)
        else:
            self._know(read, look, now)

    def _know(self, read: Sequence[tuple[str, EngineSignals]], look: Look, now: float) -> None:
        for dispatcher in self.dispatchers:
            for name, signals in read:
                dispatcher.scrape(name, signals, now)
        look(now)

    def _share(self, look: Look, now: float) -> None:
        """Everybody learns what the others have under way, as replicas with Redis do."""
        loads = [own_loads(dispatcher.state) for dispatcher in self.dispatchers]
        for k, dispatcher in enumerate(self.dispatchers):
            dispatcher.share(added([*loads[:k], *loads[k + 1 :]]), now)
        look(now)

    def _correct(self, now: float) -> None:
        for member in self._members:
            member.correct(now)

    def learned(self, now: float) -> Learned:
        """What the first replica has learned by now; the clock began at 0."""
        first = self._members[0]
        lengths, feedback = first.predictor, first.feedback
        return Learned(
            "simulation",
            now,
            lengths.cells() if isinstance(lengths, BucketLengthPredictor) else [],
            feedback.speeds(now) if feedback is not None else [],
            policies={self._policy: first.dispatcher.known()},
        )

    def _plan(self, now: float) -> None:
        for member in self._members:
            if member.planner is None or member.demand is None:
                continue
            backends = member.dispatcher.state.backends
            usable = frozenset(backend.spec.name for backend in backends if backend.usable)
            demand = member.demand.recent()
            if member.triggers.due(now, usable) and demand:
                fleet = [backend.spec for backend in serving(backends)]
                member.dispatcher.set_prices(member.planner.prices(demand, fleet, now), now)

    def _probe(self, engines: Sequence[EngineProcess], look: Look, now: float) -> None:
        """Health checks: so many failures in a row make a backend ill, one success well."""
        limit = self._reliability.health_failures
        for engine in engines:
            name = engine.spec.name
            failures = 0 if engine.responsive else self._failures.get(name, 0) + 1
            was = self._failures.get(name, 0)
            self._failures[name] = failures
            if failures == limit or (failures == 0 and was >= limit):
                self._tell_health(name, failures == 0, now)
        look(now)

    def _tell_health(self, name: str, healthy: bool, now: float) -> None:
        for dispatcher in self.dispatchers:
            if knows(dispatcher, name):
                dispatcher.set_health(name, healthy=healthy, now=now)


def build_gateways(
    trace: Trace,
    config: MotleyConfig,
    options: ReplayOptions,
    belief: Belief,
    *,
    make_planner: MakePlanner | None = None,
    log: Sink | None = None,
    learned: Learned | None = None,
) -> Gateways:
    """Put the gateway replicas together.

    Args:
        trace: only for the oracle's forecasts.
        config: fleet, policy and reliability; the policy's seed is ``options.seed``, another
            for each further replica.
        options: what each replica gets.
        belief: each backend's believed cost.
        make_planner: used if ``options.plan``.
        log: decision log of the first replica.
        learned: before, by a gateway that has stopped: every replica begins with it. Speeds
            count where a simulation wrote them, as others are of real cards, which these are not.
    """
    members = []
    for k in range(options.routers):
        policy = config.policy.model_copy(update={"seed": options.seed + k * _SEED_STEP})
        mine = replace(config, policy=policy)
        heard = log is not None and k == 0
        learns = options.feedback and not options.oracle and (heard or _minds(config, options))
        feedback = make_feedback(config, belief) if learns else None
        plans = options.plan and make_planner is not None
        demand = Demand(config.planner.window_s) if plans else None
        observers: list[Observer] = [o for o in (feedback, demand) if o is not None]
        predictor = make_predictor(options, trace, learned)
        dispatcher = build_dispatcher(
            mine,
            belief=belief,
            predictor=predictor,
            observers=observers,
            log=log if heard else None,
        )
        planner = None
        if plans and make_planner is not None:
            planner = make_planner(config, partial(_cost_of, dispatcher))
        triggers = Triggers(config.planner.interval_s)
        if feedback is not None and planner is not None:
            feedback.on_drift = lambda _, told=triggers: told.drifted()
        member = Gateway(dispatcher, feedback, demand, planner, triggers, predictor)
        if learned is not None:
            member.recall(learned, config.policy.name)
        members.append(member)
    return Gateways(members, options, config)


def make_feedback(config: MotleyConfig, belief: Belief) -> Feedback:
    """An observer that learns each backend's real speed, starting from the belief."""
    return learning.make_feedback(
        config.fleet.backends, belief, config.hardware.engine_defaults, calibrate=False
    )


def _cost_of(dispatcher: Dispatcher, spec: BackendSpec) -> LinearCost:
    return dispatcher.state.get(spec.name).cost


def _minds(config: MotleyConfig, options: ReplayOptions) -> bool:
    """Whether anything that is decided depends on what a backend is believed to cost.

    Learning is a quarter of a replay's time; where nobody looks at what was learned, the results
    are the same without, to the byte. (A decision log holds it all the same.)
    """
    policy = config.policy
    alone = policy.shadow is None and policy.canary is None
    plain = not (
        config.admission.enabled
        or config.hedging.enabled
        or config.disaggregation.enabled
        or options.fallback
    )
    return options.plan or not (alone and plain and policy.name in BLIND_TO_SPEED)


def knows(dispatcher: Dispatcher, name: str) -> bool:
    """Whether a backend is in the fleet of a dispatcher now."""
    return any(backend.spec.name == name for backend in dispatcher.state.backends)
