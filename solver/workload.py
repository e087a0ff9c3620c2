"""Demand by class: model x prompt bucket x output bucket x SLO class x tenant group, with a rate.

Built in one pass and constant memory from a trace, from what the gateway observed, or from any
iterable of arrivals. Lengths are kept as each class's own means, so that bucketing does not
shift the total work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from router.domain.errors import WorkloadError
from router.domain.outcome import Outcome
from solver.buckets import DEFAULT_BUCKETS, Buckets, limit_label
from solver.tally import Key, Tally, merge_rare

DEFAULT_MAX_CLASSES = 50


class Arrival(Protocol):
    """One past request: what a trace record or ``Arrived`` offers."""

    @property
    def arrival_s(self) -> float:
        """Seconds, from any origin."""

    @property
    def input_tokens(self) -> int:
        """Prompt length."""

    @property
    def output_tokens(self) -> int:
        """Answer length, observed: past requests only, so no policy learns a future one (I6)."""

    @property
    def model(self) -> str:
        """Model asked for; empty means the default."""

    @property
    def slo_class(self) -> str:
        """Service class; empty means the default."""

    @property
    def tenant(self) -> str:
        """Who asked; may be empty."""


class Arrived(NamedTuple):
    """The plain form of an ``Arrival``."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    model: str = ""
    slo_class: str = ""
    tenant: str = ""
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class WorkClass:
    """Requests planned for as one.

    Attributes:
        model, slo_class, tenant: shared by all of them; ``tenant`` is a tenant group.
        prompt_limit, output_limit: upper edges of the buckets, in tokens.
        prompt_tokens, output_tokens: means.
        cached_tokens: mean prompt tokens found in prefix caches; they cost no prefill.
        longest_tokens: longest prompt plus answer among them.
        rate_per_s: arrivals per second.
    """

    model: str
    slo_class: str
    tenant: str
    prompt_limit: float
    output_limit: float
    prompt_tokens: float
    output_tokens: float
    longest_tokens: int
    rate_per_s: float
    cached_tokens: float = 0.0

    @property
    def name(self) -> str:
        """``llama-3.1-8b/interactive/in<=1024/out<=256``, with the tenant group if any."""
        parts = [
            self.model,
            self.slo_class,
            limit_label("in", self.prompt_limit),
            limit_label("out", self.output_limit),
        ]
        return "/".join([*parts, self.tenant] if self.tenant else parts)


@dataclass(frozen=True, slots=True)
class Workload:
    """All classes; raises ``WorkloadError`` when there is nothing to plan for."""

    classes: tuple[WorkClass, ...]

    def __post_init__(self) -> None:
        if not self.classes:
            raise WorkloadError("the workload is empty: give a trace with at least one request")
        for work in self.classes:
            _check_class(work)
        names = [work.name for work in self.classes]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise WorkloadError(f"class {twice} is listed twice; add up its rates")

    @property
    def models(self) -> frozenset[str]:
        """Every model that is asked for."""
        return frozenset(work.model for work in self.classes)

    @property
    def rate_per_s(self) -> float:
        """All arrivals per second."""
        return sum(work.rate_per_s for work in self.classes)

    def scaled(self, factor: float) -> Workload:
        """The same mix at ``factor`` times the rate.

        Raises:
            WorkloadError: a factor that is not positive and finite.
        """
        if not (math.isfinite(factor) and factor > 0):
            raise WorkloadError(f"the rate scale must be more than 0, not {factor:g}")
        return Workload(
            tuple(replace(work, rate_per_s=work.rate_per_s * factor) for work in self.classes)
        )


def _check_class(work: WorkClass) -> None:
    if not (math.isfinite(work.rate_per_s) and work.rate_per_s >= 0):
        raise WorkloadError(
            f"class {work.name}: the rate must be 0 or more requests per second, "
            f"not {work.rate_per_s:g}"
        )
    lengths = (work.prompt_tokens, work.output_tokens, work.cached_tokens)
    if not all(math.isfinite(tokens) and tokens >= 0 for tokens in lengths):
        raise WorkloadError(f"class {work.name}: token counts must be finite and not negative")
    if not work.model:
        raise WorkloadError(f"class {work.name}: no model named; give one or a default model")


def one_tenant_group(tenant: str) -> str:  # noqa: ARG001 - the signature of a tenant grouping
    """Put every tenant into one group: the default."""
    return ""


def build_workload(
    arrivals: Iterable[Arrival],
    *,
    duration_s: float | None = None,
    default_model: str = "",
    default_slo_class: str = "interactive",
    buckets: Buckets = DEFAULT_BUCKETS,
    tenant_group: Callable[[str], str] = one_tenant_group,
    max_classes: int = DEFAULT_MAX_CLASSES,
) -> Workload:
    """Count arrivals into classes.

    Args:
        arrivals: past requests in any order; read once.
        duration_s: over which they arrived; ``None`` takes the time from first to last.
        default_model, default_slo_class: for arrivals that name none.
        buckets: length buckets.
        tenant_group: maps a tenant to the group it is planned with.
        max_classes: beyond these the rarest classes join their nearest neighbours; no request
            and no token is lost by it.

    Raises:
        WorkloadError: no arrivals, numbers that make no sense, or no time between them.
    """
    tallies: dict[Key, Tally] = {}
    first_s, last_s = math.inf, -math.inf
    for number, arrival in enumerate(arrivals, start=1):
        cached = int(getattr(arrival, "cached_tokens", 0))
        _check_arrival(number, arrival, cached)
        first_s, last_s = min(first_s, arrival.arrival_s), max(last_s, arrival.arrival_s)
        key = Key(
            arrival.model or default_model,
            arrival.slo_class or default_slo_class,
            tenant_group(arrival.tenant),
            buckets.prompt_limit(arrival.input_tokens),
            buckets.output_limit(arrival.output_tokens),
        )
        tallies.setdefault(key, Tally()).add(arrival.input_tokens, arrival.output_tokens, cached)
    if not tallies:
        raise WorkloadError("the workload is empty: give a trace with at least one request")
    seconds = last_s - first_s if duration_s is None else duration_s
    if not (math.isfinite(seconds) and seconds > 0):
        raise WorkloadError(
            f"the arrivals span {seconds:g} s, so they have no rate; a plan needs requests at "
            "different times (motley trace FILE --arrivals poisson --rate 2 --out timed.csv)"
        )
    merge_rare(tallies, max_classes)
    return Workload(tuple(_work_class(key, tallies[key], seconds) for key in sorted(tallies)))


def workload_from_outcomes(
    outcomes: Sequence[Outcome],
    *,
    duration_s: float,
    buckets: Buckets = DEFAULT_BUCKETS,
    tenant_group: Callable[[str], str] = one_tenant_group,
    max_classes: int = DEFAULT_MAX_CLASSES,
) -> Workload:
    """Count what the gateway observed: every attempt that produced tokens, prefix hits deducted.

    Raises:
        WorkloadError: as ``build_workload``.
    """
    return build_workload(
        (
            Arrived(
                outcome.arrival_s,
                outcome.prompt_tokens,
                outcome.output_tokens,
                outcome.model,
                outcome.slo_class,
                outcome.tenant,
                outcome.cached_tokens or 0,
            )
            for outcome in outcomes
            if outcome.output_tokens > 0
        ),
        duration_s=duration_s,
        buckets=buckets,
        tenant_group=tenant_group,
        max_classes=max_classes,
    )


def _check_arrival(number: int, arrival: Arrival, cached: int) -> None:
    if not math.isfinite(arrival.arrival_s):
        raise WorkloadError(f"arrival {number}: its time is not a finite number")
    if arrival.input_tokens < 0 or arrival.output_tokens < 0:
        raise WorkloadError(
            f"arrival {number}: {arrival.input_tokens} prompt and {arrival.output_tokens} output "
            "tokens; neither can be negative"
        )
    if cached < 0:
        raise WorkloadError(f"arrival {number}: {cached} cached tokens cannot be")


def _work_class(key: Key, tally: Tally, seconds: float) -> WorkClass:
    return WorkClass(
        *key,
        prompt_tokens=tally.prompt_tokens / tally.count,
        output_tokens=tally.output_tokens / tally.count,
        longest_tokens=tally.longest_tokens,
        rate_per_s=tally.count / seconds,
        cached_tokens=tally.cached_tokens / tally.count,
    )
