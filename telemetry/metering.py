"""What serving costs in energy and money, and whose it was.

Energy is power integrated over time (ML.ENERGY: joules per output token are the integral of real
power over the tokens made, joules per request the same over requests), money is rent: every card
costs its price per hour whether it works or not. Every few seconds what a backend has used since
the last settlement is split over the requests that ended there meanwhile, by the work each was:
its own prefill, and of every iteration it decoded in, its share of that. What nobody used, the
engine standing idle, is booked under ``(idle)``: the sum over tenants is always what was spent,
and the figures without ``(idle)`` are those of the busy window, which is how ML.ENERGY measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from router.domain.outcome import Outcome
from router.domain.state import LinearCost
from telemetry.label_cap import LabelCap
from telemetry.power import PowerPrior

IDLE, NOBODY = "(idle)", "(none)"
"""Booked to no tenant: nothing ran; the request named none."""

MOST_TENANTS = 200
SETTLE_S = 10.0
MOST_GAP_S = 30.0
"""A longer silence between two samples (a stopped process, a clock that jumped) is not booked."""

Key = tuple[str, str, str]
"""Tenant, model, GPU type."""


@dataclass(frozen=True, slots=True)
class Metered:
    """What is known of a backend's bill.

    Attributes:
        model, gpu: labels.
        usd_per_hour: of all its cards.
        cost: to weigh requests by.
        power: prior, for where nothing is measured.
    """

    model: str
    gpu: str
    usd_per_hour: float
    cost: LinearCost
    power: PowerPrior


@dataclass(slots=True)
class Bill:
    """One tenant's, for one model on one type of GPU."""

    usd: float = 0.0
    joules: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0


@dataclass(slots=True)
class _Backend:
    facts: Metered
    sampled_s: float
    usd: float = 0.0
    joules: float = 0.0
    watts: float = 0.0
    source: str = "prior"
    total_joules: dict[str, float] = field(default_factory=dict)
    work: dict[Key, float] = field(default_factory=dict)


class Meter:
    """An ``Observer`` that keeps the bills.

    Args:
        running: requests that a backend works on now.
        measured: (watts, source) of a backend, where its cards tell.
    """

    def __init__(
        self,
        running: Callable[[str], float],
        measured: Callable[[str], tuple[float, str] | None] = lambda _: None,
    ) -> None:
        self._running, self._measured = running, measured
        self._backends: dict[str, _Backend] = {}
        self._settled_s: float | None = None
        self._cap = LabelCap(MOST_TENANTS)
        self.bills: dict[Key, Bill] = {}

    def add(self, name: str, facts: Metered, now: float) -> None:
        """A backend begins to cost."""
        self._backends[name] = _Backend(facts, now)

    def remove(self, name: str, now: float) -> None:
        """A backend left: what it used last is booked."""
        backend = self._backends.pop(name, None)
        if backend is not None:
            self._accrue(name, backend, now)
            self._settle(backend, idle=True)

    def observe(self, outcome: Outcome) -> None:
        """Weigh one finished attempt; failed and cancelled ones used their engine too."""
        backend = self._backends.get(outcome.backend)
        if backend is None:
            return
        facts = backend.facts
        tenant = self._cap(outcome.tenant) if outcome.tenant else NOBODY
        key = (tenant, facts.model, facts.gpu)
        backend.work[key] = backend.work.get(key, 0.0) + work_s(facts.cost, outcome)
        bill = self._bill(key)
        bill.output_tokens += outcome.output_tokens
        if outcome.status == "completed":
            bill.prompt_tokens += outcome.prompt_tokens
            bill.requests += 1

    def sample(self, now: float) -> None:
        """Book what was used since the last sample; call it every second or so."""
        for name, backend in self._backends.items():
            self._accrue(name, backend, now)
        if self._settled_s is None or not 0.0 <= now - self._settled_s < SETTLE_S:
            self._settled_s = now
            for name, backend in self._backends.items():
                self._settle(backend, idle=self._running(name) <= 0)

    def _accrue(self, name: str, backend: _Backend, now: float) -> None:
        elapsed_s = now - backend.sampled_s
        backend.sampled_s = now
        told = self._measured(name)
        if told is None:
            told = backend.facts.power.watts(self._running(name)), "prior"
        backend.watts, backend.source = told
        if not 0.0 < elapsed_s <= MOST_GAP_S:
            return
        joules = backend.watts * elapsed_s
        backend.usd += backend.facts.usd_per_hour * elapsed_s / 3600.0
        backend.joules += joules
        total = backend.total_joules
        total[backend.source] = total.get(backend.source, 0.0) + joules

    def _settle(self, backend: _Backend, *, idle: bool) -> None:
        """Split what has accrued; while requests run and none has ended, it waits for them."""
        work, facts = backend.work, backend.facts
        total = sum(work.values())
        if total <= 0.0:
            if not idle:
                return
            work, total = {(IDLE, facts.model, facts.gpu): 1.0}, 1.0
        for key, weight in work.items():
            bill = self._bill(key)
            bill.usd += backend.usd * weight / total
            bill.joules += backend.joules * weight / total
        backend.usd = backend.joules = 0.0
        backend.work = {}

    def _bill(self, key: Key) -> Bill:
        bill = self.bills.get(key)
        if bill is None:
            bill = self.bills[key] = Bill()
        return bill

    # -- what is told ------------------------------------------------------------------------

    def watts(self) -> Iterator[tuple[str, str, float]]:
        """(backend, source, watts) now."""
        for name, backend in self._backends.items():
            yield name, backend.source, backend.watts

    def rents(self) -> Iterator[tuple[str, float]]:
        """(backend, dollars per hour of all its cards)."""
        for name, backend in self._backends.items():
            yield name, backend.facts.usd_per_hour

    def energy(self) -> Iterator[tuple[str, Metered, str, float]]:
        """(backend, its facts, source, joules since it joined)."""
        for name, backend in self._backends.items():
            for source, joules in backend.total_joules.items():
                yield name, backend.facts, source, joules

    def described(self) -> list[dict[str, object]]:
        """Every bill with its ratios, for people and JSON; a ratio without a divisor is null."""
        return [
            {"tenant": tenant, "model": model, "gpu": gpu, **_figures(bill)}
            for (tenant, model, gpu), bill in sorted(self.bills.items())
        ]


def work_s(cost: LinearCost, outcome: Outcome) -> float:
    """Engine-seconds that one attempt was worth: its prefill, and its share of each iteration.

    An iteration's fixed time is shared by the sequences in it, those that were decoding when the
    request was sent standing for those it met.
    """
    prompt, cached = outcome.prompt_tokens, outcome.cached_tokens or 0
    started = outcome.first_token_s is not None or outcome.status == "completed"
    prefill_s = cost.prompt_s(prompt, min(cached, prompt)) if started else 0.0
    context = prompt + 0.5 * outcome.output_tokens
    each_s = cost.step_s / (1 + outcome.decoding_at_dispatch) + cost.seq_s
    return prefill_s + outcome.output_tokens * (each_s + cost.context_s * context)


def _figures(bill: Bill) -> dict[str, object]:
    tokens = bill.prompt_tokens + bill.output_tokens
    return {
        "requests": bill.requests,
        "prompt_tokens": bill.prompt_tokens,
        "output_tokens": bill.output_tokens,
        "cost_usd": bill.usd,
        "energy_joules": bill.joules,
        "usd_per_million_tokens": 1e6 * bill.usd / tokens if tokens else None,
        "joules_per_output_token": bill.joules / bill.output_tokens if bill.output_tokens else None,
        "joules_per_request": bill.joules / bill.requests if bill.requests else None,
    }
