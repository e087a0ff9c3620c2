"""One backend as the router knows it: exact counts of what it sent, beliefs about the rest.

Every event costs O(1). Policies read this object through ``BackendView``; ``version`` grows with
every change but a scrape's ``signals``, so anything derived from the rest can be cached.
"""

from __future__ import annotations

import math

from router.domain.fleet import BackendSpec
from router.domain.outcome import Meanwhile
from router.domain.state import NO_LOAD, EngineSignals, RemoteLoad
from router.fleet_state.capability import Capability
from router.fleet_state.flight import Flight
from router.health.breaker import BreakerConfig, CircuitBreaker
from router.health.care import FailureShare
from router.perf.feasible import MIN_CONTEXT_TOKENS

KV_TOLD_S = 60.0
TOGETHER_S = 0.002
"""First tokens within this of each other came out of the same iteration."""


class BackendState:
    """Implements ``BackendView``; only ``FleetState`` and ``Dispatcher`` write to it."""

    __slots__ = (
        "_context_limit_tokens",
        "_correction",
        "_kv_before_tokens",
        "_kv_told_s",
        "_least_kv_tokens",
        "_prefilled_pairs",
        "_prefilled_s",
        "_prefilled_tokens",
        "_prefills",
        "_seq_s",
        "_until_s",
        "arrivals_s",
        "breaker",
        "chunk_tokens",
        "context_tokens",
        "cost",
        "decoding",
        "draining",
        "failures",
        "healthy",
        "in_flight",
        "index",
        "kv_bytes_per_token",
        "kv_capacity_tokens",
        "max_context_tokens",
        "max_num_seqs",
        "pending_output_tokens",
        "pending_prefill_pairs",
        "pending_prefill_tokens",
        "prefill_since_s",
        "prefilling",
        "prefix_caching",
        "price",
        "prior",
        "ramps_from_s",
        "remote",
        "signals",
        "spec",
        "version",
    )

    def __init__(
        self, spec: BackendSpec, index: int, capability: Capability, breaker: BreakerConfig
    ) -> None:
        self.spec = spec
        self.index = index
        self.version = 0
        self.prior = self.cost = capability.cost
        self.kv_capacity_tokens = self._kv_before_tokens = capability.kv_capacity_tokens
        self.kv_bytes_per_token = capability.kv_bytes_per_token
        self.prefix_caching = capability.prefix_caching
        self._context_limit_tokens = capability.max_context_tokens
        self.max_context_tokens = min(capability.max_context_tokens, capability.kv_capacity_tokens)
        self._least_kv_tokens = min(MIN_CONTEXT_TOKENS, self.max_context_tokens // 2)
        self.chunk_tokens = capability.chunk_tokens
        self.max_num_seqs = capability.max_num_seqs
        self.in_flight = 0
        self.arrivals_s = 0.0
        self.prefilling = 0
        self.pending_prefill_tokens = 0
        self.pending_prefill_pairs = 0.0
        self.prefill_since_s = 0.0
        self.decoding = 0
        self.context_tokens = 0.0
        self.pending_output_tokens = 0.0
        self.signals: EngineSignals | None = None
        self.price = 0.0
        self.healthy = True
        self.draining = False
        self.breaker = CircuitBreaker(breaker)
        self.failures = FailureShare()
        self.ramps_from_s = -math.inf
        self._correction = (1.0, 1.0)
        self.remote = NO_LOAD
        self._until_s = self._seq_s = self._prefilled_pairs = 0.0
        self._prefills = self._prefilled_tokens = 0
        self._prefilled_s = self._kv_told_s = -math.inf

    @property
    def usable(self) -> bool:
        """Whether a request may be sent here now."""
        return self.healthy and not self.draining and self.breaker.allows()

    @property
    def mean_arrival_s(self) -> float:
        """When the router's own requests in flight arrived, on average; infinity if none."""
        own = self.in_flight - self.remote.in_flight
        return self.arrivals_s / own if own > 0 else math.inf

    @property
    def correction(self) -> tuple[float, float]:
        """Learned multipliers on the prior: prefill, decode."""
        return self._correction

    def sent(self, flight: Flight, now: float) -> None:
        """A request leaves for this backend."""
        if not self.prefilling:
            self.prefill_since_s = now
        self.in_flight += 1
        self.arrivals_s += flight.request.arrival_s
        self.prefilling += 1
        self.pending_prefill_tokens += flight.fresh_tokens
        self.pending_prefill_pairs += flight.pairs
        self.context_tokens += flight.prompt_tokens + flight.residual_tokens
        self.pending_output_tokens += flight.residual_tokens
        self.version += 1

    def adopted(self, flight: Flight, now: float) -> None:
        """Its prompt is computed elsewhere: only its answer will cost time here.

        It counts as decoding from the start, for its KV has to have room when it comes.
        """
        flight.decoding = True
        self._decoded(now)
        self.in_flight += 1
        self.arrivals_s += flight.request.arrival_s
        self.decoding += 1
        self.context_tokens += flight.prompt_tokens + flight.residual_tokens
        self.pending_output_tokens += flight.residual_tokens
        self.version += 1

    def first_token(self, flight: Flight, now: float) -> None:
        """Its first token came: prefill is over, decoding begins."""
        flight.first_token_s = now
        self.prefilled(flight, now)
        if flight.before is None:  # it was prefilled elsewhere
            self._decoded(now)
            flight.before = self.work()

    def prefilled(self, flight: Flight, now: float) -> None:
        """Its prefill is over, seen or presumed; later calls change nothing."""
        if flight.decoding:
            return
        flight.decoding = True
        self._drop_prefill(flight)
        self._decoded(now)
        if now - self._prefilled_s > TOGETHER_S:
            self._prefills += 1
        self._prefilled_s = now
        self._prefilled_tokens += flight.fresh_tokens
        self._prefilled_pairs += flight.pairs
        flight.before = self.work()
        self.prefill_since_s = now
        self.decoding += 1
        self.version += 1

    def ended(self, flight: Flight, now: float) -> None:
        """It is over, in whatever way; its share of every count goes (I2)."""
        if not flight.decoding:
            self._drop_prefill(flight)
            # One sent since then was not the one being prefilled, so that one's progress stands.
            if flight.dispatched_s <= self.prefill_since_s:
                self.prefill_since_s = now
        else:
            self._decoded(now)
            self.decoding -= 1
        self.in_flight -= 1
        if self.in_flight:
            self.arrivals_s -= flight.request.arrival_s
            self.context_tokens -= flight.prompt_tokens + flight.residual_tokens
            self.pending_output_tokens -= flight.residual_tokens
        else:  # start from exact zeros again, so that rounding never accumulates
            self.arrivals_s = self.context_tokens = self.pending_output_tokens = 0.0
        self.version += 1

    def _drop_prefill(self, flight: Flight) -> None:
        self.prefilling -= 1
        self.pending_prefill_tokens -= flight.fresh_tokens
        if self.prefilling:
            self.pending_prefill_pairs -= flight.pairs
        else:  # exact zero, so that rounding never accumulates
            self.pending_prefill_pairs = 0.0

    def _decoded(self, now: float) -> None:
        """As many as decode now have done so until now."""
        self._seq_s += self.decoding * (now - self._until_s)
        self._until_s = now

    def work(self) -> Meanwhile:
        """All that was done here up to the last first token or end, by this router's count."""
        return Meanwhile(
            self._until_s,
            self._seq_s,
            self._prefills,
            self._prefilled_tokens,
            self._prefilled_pairs,
        )

    def share(self, load: RemoteLoad, now: float) -> None:
        """Other replicas have this under way here now; it counts like our own."""
        old = self.remote
        if load == old:
            return
        if not self.prefilling and load.prefilling:
            self.prefill_since_s = now
        self._decoded(now)
        self.remote = load
        self.in_flight += load.in_flight - old.in_flight
        self.prefilling += load.prefilling - old.prefilling
        self.pending_prefill_tokens += load.pending_prefill_tokens - old.pending_prefill_tokens
        self.decoding += load.decoding - old.decoding
        if self.prefilling:
            self.pending_prefill_pairs += load.pending_prefill_pairs - old.pending_prefill_pairs
        else:
            self.pending_prefill_pairs = 0.0
        if self.in_flight:
            self.context_tokens += load.context_tokens - old.context_tokens
            self.pending_output_tokens += load.pending_output_tokens - old.pending_output_tokens
        else:
            self.context_tokens = self.pending_output_tokens = 0.0
        self.version += 1

    def own_load(self) -> RemoteLoad:
        """What this router has under way here, others' deducted."""
        remote = self.remote
        return RemoteLoad(
            self.in_flight - remote.in_flight,
            self.prefilling - remote.prefilling,
            self.pending_prefill_tokens - remote.pending_prefill_tokens,
            max(0.0, self.pending_prefill_pairs - remote.pending_prefill_pairs),
            self.decoding - remote.decoding,
            max(0.0, self.context_tokens - remote.context_tokens),
            max(0.0, self.pending_output_tokens - remote.pending_output_tokens),
        )

    def scraped(self, signals: EngineSignals) -> None:
        """The engine said something of itself.

        A KV cache that holds next to nothing is a gauge gone wrong: believed, it would keep every
        request from a backend that serves. A size no longer told counts for ``KV_TOLD_S``, then
        that from before any telemetry: it may be another engine by now.
        """
        self.signals = signals
        capacity = signals.kv_capacity_tokens or 0
        if capacity >= self._least_kv_tokens:
            self._kv_told_s = signals.observed_s
        elif signals.observed_s > self._kv_told_s + KV_TOLD_S:
            capacity = self._kv_before_tokens
        else:
            return
        if capacity != self.kv_capacity_tokens:
            self.kv_capacity_tokens = capacity
            self.max_context_tokens = min(self._context_limit_tokens, capacity)
            self.version += 1

    def correct(self, prefill: float, decode: float) -> None:
        """Replace the learned multipliers on the prior cost."""
        self._correction = (prefill, decode)
        self.cost = self.prior.scaled(prefill=prefill, decode=decode)
        self.version += 1

    def reprice(self, price: float) -> None:
        """The planner's price of one engine-second here."""
        self.price = price
        self.version += 1
