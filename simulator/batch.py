"""Several policies and seeds on one trace and fleet: what ``motley simulate`` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from router.config.load import MotleyConfig
from router.domain.protocols import Planner
from simulator.faults import Fault
from simulator.gateways import Costs
from simulator.options import ReplayOptions
from simulator.report.outputs import writing
from simulator.results import RunResult
from simulator.run import policy_names, run_policy
from simulator.traces.columns import Trace
from simulator.workload import TraceSpec, build_trace
from telemetry.learned import Learned

BatchProgress = Callable[[str, int, int], object]


@dataclass(slots=True)
class Batch:
    """Every policy with every seed, on the same arrivals and lengths per seed.

    Attributes:
        spec: the trace.
        config: the fleet file.
        policies: names; ``all`` stands for every one.
        options: of the first seed.
        seeds: how many, counting up from ``options.seed``.
        faults: the timeline.
        decision_log: where to write it; one file per run.
        learned: before, by a gateway that has stopped.
        trace_notes: what was left out of the trace; filled in by ``run``.
    """

    spec: TraceSpec
    config: MotleyConfig
    policies: Sequence[str]
    options: ReplayOptions
    seeds: int = 1
    faults: Sequence[Fault] = ()
    decision_log: Path | None = None
    learned: Learned | None = None
    trace_notes: list[str] = field(default_factory=list)

    def run(self, progress: BatchProgress | None = None) -> list[RunResult]:
        """Run everything, one after the other.

        Args:
            progress: told (what runs, requests settled, requests) now and then.

        Raises:
            BadInputError: a policy, trace, fleet or fault that cannot be used.
        """
        policies = policy_names(self.policies)
        results = []
        for seed in range(self.options.seed, self.options.seed + self.seeds):
            trace, notes = build_trace(self.spec, seed)
            self.trace_notes.extend(note for note in notes if note not in self.trace_notes)
            results += [self._one(trace, policy, seed, progress) for policy in policies]
        return results

    def _one(
        self, trace: Trace, policy: str, seed: int, progress: BatchProgress | None
    ) -> RunResult:
        name = policy if self.seeds == 1 else f"{policy} seed {seed}"
        with ExitStack() as stack:
            log = None
            if self.decision_log is not None:
                path = self._log_path(policy, seed)
                stack.enter_context(writing(path))
                log = stack.enter_context(path.open("wb")).write
            return run_policy(
                trace,
                self.config,
                policy,
                replace(self.options, seed=seed),
                rate_scale=self.spec.rate_scale,
                faults=self.faults,
                make_planner=make_planner,
                log=log,
                learned=self.learned,
                progress=(lambda done, total: progress(name, done, total)) if progress else None,
            )

    def _log_path(self, policy: str, seed: int) -> Path:
        assert self.decision_log is not None
        if len(policy_names(self.policies)) == 1 and self.seeds == 1:
            return self.decision_log
        path = self.decision_log
        return path.with_name(f"{path.stem}-{policy}-{seed}{path.suffix}")


def make_planner(config: MotleyConfig, costs: Costs) -> Planner:
    """The rolling planner of the solver, as the gateway would run it."""
    from solver import settings  # noqa: PLC0415 - heavy, and rarely asked for

    return settings.make_planner(config, costs)
