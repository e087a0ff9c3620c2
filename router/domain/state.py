"""What is known of a backend right now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from router.domain.fleet import BackendSpec


@dataclass(slots=True)
class EngineSignals:
    """One scrape of one engine. Unknown is ``None``, never zero.

    Not frozen, for speed only: nobody writes to one.

    Attributes:
        observed_s: when the engine said so, on the caller's clock.
        running: requests being computed.
        waiting: requests queued inside the engine.
        kv_usage: share of KV blocks in use, 0 to 1.
        kv_capacity_tokens: total KV tokens, where the engine tells it.
        prefix_hit_ratio: share of looked-up prompt tokens found in the prefix cache, 0 to 1.
        gen_tokens_per_s: measured generation rate, where the engine tells it (SGLang does).
        preemptions: lifetime count of preempted (vLLM) or retracted (SGLang) requests.
    """

    observed_s: float
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    kv_capacity_tokens: int | None = None
    prefix_hit_ratio: float | None = None
    preemptions: int | None = None
    gen_tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class RemoteLoad:
    """What other replicas of the router have under way at one backend; see ``BackendView``."""

    in_flight: int = 0
    prefilling: int = 0
    pending_prefill_tokens: int = 0
    pending_prefill_pairs: float = 0.0
    decoding: int = 0
    context_tokens: float = 0.0
    pending_output_tokens: float = 0.0

    def plus(self, other: RemoteLoad) -> RemoteLoad:
        """Both together."""
        return RemoteLoad(
            self.in_flight + other.in_flight,
            self.prefilling + other.prefilling,
            self.pending_prefill_tokens + other.pending_prefill_tokens,
            self.pending_prefill_pairs + other.pending_prefill_pairs,
            self.decoding + other.decoding,
            self.context_tokens + other.context_tokens,
            self.pending_output_tokens + other.pending_output_tokens,
        )


NO_LOAD = RemoteLoad()


@dataclass(frozen=True, slots=True)
class LinearCost:
    """The engine iteration as the policies believe it to be, in seconds.

    ``t = step_s + prefill_s * prefill_tokens + seq_s * decode_seqs + context_s * context_tokens
    + pair_s * prefill_pairs``, where a prompt of n tokens on top of c cached ones has
    ``n * (c + n / 2)`` pairs: causal attention, which long prompts feel and short ones do not.

    The linear form of the measured roofline: within 0.4 points of the best fit on four GPUs
    (Helix measurements), and linear in what telemetry learns.
    """

    step_s: float
    prefill_s: float
    seq_s: float
    context_s: float
    pair_s: float = 0.0

    def iteration_s(
        self,
        prefill_tokens: float,
        decode_seqs: float,
        context_tokens: float,
        prefill_pairs: float = 0.0,
    ) -> float:
        """Duration of one iteration."""
        return (
            self.step_s
            + self.prefill_s * prefill_tokens
            + self.seq_s * decode_seqs
            + self.context_s * context_tokens
            + self.pair_s * prefill_pairs
        )

    def prompt_s(self, prompt_tokens: float, cached_tokens: float = 0.0) -> float:
        """Seconds of prefill of one prompt whose first ``cached_tokens`` are cached."""
        fresh = prompt_tokens - cached_tokens
        return self.prefill_s * fresh + self.pair_s * fresh * (cached_tokens + 0.5 * fresh)

    def scaled(self, *, prefill: float, decode: float) -> LinearCost:
        """This cost with each phase multiplied by a learned or injected factor."""
        return LinearCost(
            step_s=self.step_s * decode,
            prefill_s=self.prefill_s * prefill,
            seq_s=self.seq_s * decode,
            context_s=self.context_s * decode,
            pair_s=self.pair_s * prefill,
        )


class BackendView(Protocol):
    """What a policy may read of one backend. Read-only by type.

    The counts are the router's own and exact; ``signals`` is the engine's last scrape and
    stale. Token figures that depend on output length are predictions.
    """

    @property
    def spec(self) -> BackendSpec:
        """The backend."""

    @property
    def index(self) -> int:
        """Stable position, for tie-breaks."""

    @property
    def version(self) -> int:
        """Grows with every change of anything here but ``signals``, which have an age of their own:
        figures derived from the rest can be cached."""

    @property
    def in_flight(self) -> int:
        """Requests sent and not finished (I2)."""

    @property
    def mean_arrival_s(self) -> float:
        """When the requests in flight arrived, on average; infinity if this router sent none."""

    @property
    def prefilling(self) -> int:
        """Of those, the ones whose first token has not come."""

    @property
    def pending_prefill_tokens(self) -> int:
        """Prompt tokens of the prefilling ones, cached prefixes deducted."""

    @property
    def pending_prefill_pairs(self) -> float:
        """Attention pairs of the prefilling ones (see ``LinearCost``)."""

    @property
    def prefill_since_s(self) -> float:
        """When the oldest unfinished prefill can have started; meaningless if none."""

    @property
    def decoding(self) -> int:
        """Requests past their first token and not finished."""

    @property
    def context_tokens(self) -> float:
        """Expected KV tokens held by all requests in flight: prompts and what is generated."""

    @property
    def pending_output_tokens(self) -> float:
        """Output tokens that the requests in flight are expected still to need."""

    @property
    def kv_capacity_tokens(self) -> int:
        """Believed KV capacity."""

    @property
    def prefix_caching(self) -> bool:
        """Whether its settings have it keep finished prompts for reuse."""

    @property
    def max_context_tokens(self) -> int:
        """Longest prompt plus output that the backend accepts."""

    @property
    def chunk_tokens(self) -> int:
        """Prompt tokens that one iteration takes at most."""

    @property
    def max_num_seqs(self) -> int:
        """Requests that the engine runs at once."""

    @property
    def cost(self) -> LinearCost:
        """Believed iteration cost, telemetry's corrections applied."""

    @property
    def signals(self) -> EngineSignals | None:
        """Last scrape; ``None`` when there has been none."""

    @property
    def price(self) -> float:
        """Shadow price of one engine-second here, in seconds of delay; 0 without a plan."""
