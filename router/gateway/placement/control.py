"""Re-plans the placement now and then, carries it out, and keeps what came of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from router.config.load import MotleyConfig
from router.domain.errors import MotleyError
from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome
from router.fleet_state.backend import BackendState
from router.gateway.placement.adapter import Adapter
from router.gateway.placement.carry_out import CarryOut, Members, Step
from router.gateway.placement.dry_run import DryRun
from solver.answer import Plan
from solver.background import PlanTask, plan_apart
from solver.believed import believed_models
from solver.options import Weights
from solver.settings import limits_of, tenant_group_of
from solver.stock import Pool, placed_stock
from solver.triggers import TICK_S, Reason, Triggers, serving
from solver.workload import workload_from_outcomes

log = logging.getLogger("motley.placement")

MakePlan = Callable[[PlanTask], Plan]


@dataclass(frozen=True, slots=True)
class Placed:
    """One placement that was planned.

    Attributes:
        reason: why it was made.
        outcome: "kept" (nothing to do, or no traffic to plan for), "applied", "partly", "written"
            (dry run) or "failed".
        failure: why there is none, or why it was not all done; or empty.
        plan: the plan, or ``None``.
        steps: taken and not taken, in order.
        asked: demand and fleet (JSON values).
        actual_e2e_s: mean E2E of what was completed in the window; ``None`` without any.
        preview: what the adapter said that it would change, before it did.
    """

    reason: Reason
    outcome: str
    failure: str
    plan: Plan | None
    steps: tuple[Step, ...]
    asked: dict[str, Any]
    actual_e2e_s: float | None
    preview: tuple[str, ...] = ()


class PlacementLoop:
    """Plans the placement on a period, on drift and when the fleet changes by itself.

    Args:
        config: the fleet file.
        adapter: starts and stops engines.
        members: the fleet.
        recent: outcomes of the window that ends now.
        now: seconds.
        listener: told of every placement.
        make_plan: runs in a thread; by default it plans in a process of its own.

    Attributes:
        config: may be replaced; the adapter and the timeouts stay.
        triggers: when.
        steps: taken so far, by kind and outcome ("ok" or "failed").
    """

    def __init__(
        self,
        config: MotleyConfig,
        adapter: Adapter,
        members: Members,
        recent: Callable[[], Sequence[Outcome]],
        now: Callable[[], float],
        *,
        listener: Callable[[Placed], None] | None = None,
        make_plan: MakePlan | None = None,
    ) -> None:
        settings = config.planner.placement
        self.config, self._adapter, self._members = config, adapter, members
        self._recent, self._now = recent, now
        self._listener = listener
        self._stopped = threading.Event()
        self._make_plan = make_plan or partial(plan_apart, stopped=self._stopped.is_set)
        self._carry_out = CarryOut(
            adapter,
            members,
            ready_timeout_s=settings.ready_timeout_s,
            drain_timeout_s=config.reliability.total_timeout_s,
            pause_s=settings.pause_s,
        )
        self.triggers = Triggers(settings.interval_s)
        self.steps: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """Place for ever."""
        interval_s = self.config.planner.placement.interval_s
        try:
            while True:
                reason = self.triggers.due(self._now(), self._usable())
                if reason is not None:
                    await self.place_once(reason)
                    self.triggers.settle(self._usable())
                await asyncio.sleep(min(TICK_S, interval_s))
        finally:
            self._stopped.set()  # else the gateway would wait for the planning thread
            await self._adapter.close()

    async def place_once(self, reason: Reason = "period") -> Placed:
        """Plan once and carry it out."""
        outcomes = list(self._recent())
        done = await self._placed(reason, outcomes)
        for step in done.steps:
            self.steps[step.kind, "failed" if step.failure else "ok"] += 1
        if done.failure:
            log.warning("placement (%s): %s", reason, done.failure)
        if self._listener is not None:
            self._listener(done)
        return done

    async def _placed(self, reason: Reason, outcomes: Sequence[Outcome]) -> Placed:
        actual_s = _mean_e2e_s(outcomes)
        asked: dict[str, Any] = {}
        if not any(outcome.output_tokens for outcome in outcomes):
            return Placed(reason, "kept", "", None, (), asked, actual_s)  # nobody asks: no reason
        try:
            task = await self._task(outcomes)
            asked = _asked(task, self._members.backends())
            plan = await asyncio.to_thread(self._make_plan, task)
            wanted = {one.group: one.replicas for one in plan.replicas}
            preview = self._adapter.preview(wanted)
            steps = tuple(await self._carry_out.run(wanted))
            if isinstance(self._adapter, DryRun):
                self._adapter.write(
                    {"plan": plan.to_json(), "steps": [asdict(step) for step in steps]}
                )
        except MotleyError as error:
            return Placed(reason, "failed", str(error), None, (), asked, actual_s)
        failure = next((step.failure for step in steps if step.failure), "")
        if not steps:
            outcome = "kept"
        elif self._adapter.dry:
            outcome = "written"
        else:
            outcome = "partly" if failure else "applied"
        return Placed(reason, outcome, failure, plan, steps, asked, actual_s, preview)

    async def _task(self, outcomes: Sequence[Outcome]) -> PlanTask:
        """What to plan for, as of now.

        Raises:
            WorkloadError: nobody asked for anything in the window.
            PlacementError: the adapter cannot tell what there is.
        """
        config = self.config
        workload = workload_from_outcomes(
            outcomes,
            duration_s=_span_s(outcomes, self._now(), config.planner.window_s),
            tenant_group=tenant_group_of(config.planner),
        )
        backends = serving(self._members.backends())
        running = [backend.spec for backend in backends]
        costs = {backend.spec.name: backend.cost for backend in backends}
        survey = await self._adapter.survey([b.spec for b in self._members.backends()])
        names = {spec.name for spec in running}
        out = [b.spec for b in self._members.backends() if b.spec.name not in names]
        stock = placed_stock(
            without(survey.pools, out),
            running,
            survey.startable,
            config.hardware,
            scalable=survey.scalable,
        )
        return PlanTask(
            workload,
            stock,
            Weights.from_mapping(dict(config.planner.weights)),
            limits_of(config, allow_unserved=True),
            believed_models(running, lambda spec: costs.get(spec.name)),
        )

    def _usable(self) -> frozenset[str]:
        return frozenset(b.spec.name for b in self._members.backends() if b.usable)


def without(pools: Sequence[Pool], out: Sequence[BackendSpec]) -> tuple[Pool, ...]:
    """The pools without the cards of engines that are ill or draining."""
    left = []
    for pool in pools:
        islands = dict(pool.islands)
        for spec in out:
            size = spec.tensor_parallel
            if (spec.gpu, spec.zone) == (pool.gpu, pool.zone) and islands.get(size):
                islands[size] -= 1
        left.append(replace(pool, islands=islands))
    return tuple(left)


def _asked(task: PlanTask, backends: Sequence[BackendState]) -> dict[str, Any]:
    return {
        "fleet": dict(Counter(backend.spec.group for backend in backends)),
        "classes": [
            {"class": work.name, "rate_per_s": work.rate_per_s} for work in task.workload.classes
        ],
        "stock": {pool.name: pool.cards for pool in task.stock.pools},
    }


def _span_s(outcomes: Sequence[Outcome], now: float, window_s: float) -> float:
    first_s = min((outcome.arrival_s for outcome in outcomes), default=now)
    return max(1.0, min(window_s, now - first_s))


def _mean_e2e_s(outcomes: Sequence[Outcome]) -> float | None:
    done = [outcome.e2e_s for outcome in outcomes if outcome.status == "completed"]
    return sum(done) / len(done) if done else None
