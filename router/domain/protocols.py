"""The seams: everything that can be swapped, as protocols.

All of them are synchronous and take time as an argument, so the gateway (wall clock) and the
simulator (virtual clock) drive the same objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from router.domain.fleet import BackendSpec
from router.domain.outcome import Begun, Outcome
from router.domain.request import LengthForecast, Request
from router.domain.state import BackendView, LinearCost


@dataclass(frozen=True, slots=True)
class Hold:
    """A policy's answer: keep the request waiting for this backend, busy as it is.

    Nobody who comes later gets the backend before it; the others are free for them.

    Attributes:
        backend: what it waits for.
        prefill_s: how long its prompt will keep the backend from those behind it; infinity where
            the policy does not say, and then nobody waits behind it.
    """

    backend: BackendView
    prefill_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Taken:
    """A backend that requests in the router wait for already.

    Attributes:
        backend: what they wait for.
        prefill_s: how long their prompts will keep it, together; infinity if nobody knows.
        prompt_tokens: the tokens of these.
    """

    backend: BackendView
    prefill_s: float
    prompt_tokens: int


class Policy(Protocol):
    """Chooses a backend for one request."""

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | Hold | None:
        """Return one of ``candidates`` (never empty), or what to wait for.

        ``Hold(view)`` keeps the request waiting for one of the candidates, ``None`` for any.

        Must not mutate its arguments and must be deterministic under its own seeded
        randomness (I5).
        """


@runtime_checkable
class Queues(Protocol):
    """A policy that can let a request wait for a backend behind others who do."""

    def choose_or_queue(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        taken: Sequence[Taken],
        now: float,
    ) -> BackendView | Hold | None:
        """As ``choose``; ``Hold`` may name one of ``taken`` too, to wait at its end."""


@runtime_checkable
class DispatchListener(Protocol):
    """A policy that wants to know what was really sent; it keeps, say, an index of prefixes."""

    def dispatched(self, request: Request, backend: BackendView, now: float) -> int:
        """Take note; return the prompt tokens that the backend probably has cached."""


@runtime_checkable
class CacheBelief(Protocol):
    """A policy that can say what it believes to be cached, without anything being sent."""

    def believed_cached(self, request: Request, backend: BackendView) -> int:
        """Prompt tokens that the backend probably has cached; must change nothing."""


@runtime_checkable
class CacheNews(Protocol):
    """A policy whose index follows what engines say of their caches."""

    def cached(
        self,
        backend: BackendView,
        stored: Sequence[int],
        evicted: Sequence[int],
        block_tokens: int,
    ) -> None:
        """These prefix hashes, of so many tokens each, entered and left the backend's cache."""


@runtime_checkable
class PrefixAudit(Protocol):
    """A policy that keeps book of how right it was about what is cached where.

    Attributes:
        prefix_audit: by backend, prompt tokens promised to be cached and those of them that the
            engine really found, over completed requests.
    """

    prefix_audit: Mapping[str, list[int]]


@runtime_checkable
class PrefixHints(Protocol):
    """A policy that can use what other replicas of the router sent."""

    def hint(self, backend: BackendView, hashes: Sequence[int], block_tokens: int) -> None:
        """Another replica sent a prompt with this beginning there."""


@runtime_checkable
class LossListener(Protocol):
    """A policy that remembers things of backends and wants to know whom to forget."""

    def lost(self, backend: str) -> None:
        """This backend left the fleet, or is ill: its caches are gone."""


@runtime_checkable
class Recalls(Protocol):
    """A policy that has learned what stays true over a restart."""

    def known(self) -> dict[str, float]:
        """That, by name; empty while there is nothing."""

    def recall(self, known: Mapping[str, float]) -> None:
        """Begin with it; called before the first request."""


@runtime_checkable
class Observer(Protocol):
    """Learns from finished attempts; learning is separate from choosing."""

    def observe(self, outcome: Outcome) -> None:
        """Take note of one finished attempt."""


@runtime_checkable
class FirstTokenListener(Protocol):
    """An observer that learns from first tokens too, long before the answers are over."""

    def began(self, request_id: str, backend: str, attempt: Begun) -> None:
        """The first token came of an attempt that one backend serves; ``observe`` tells its end."""


class LengthPredictor(Observer, Protocol):
    """Forecasts output lengths from what finished before."""

    def forecast(self, request: Request) -> LengthForecast:
        """Return mean and 90th percentile of the output tokens to expect."""


@runtime_checkable
class BeginListener(Protocol):
    """A length predictor that counts what is under way, too."""

    def begun(self, request: Request) -> None:
        """An attempt at this request was sent; its end is told by ``observe``."""


class PerfModel(Protocol):
    """What one backend's hardware can do: read by solver, simulator and policies.

    Implemented by ``router.perf.roofline.IterationModel`` (the truth of the simulator and the
    prior of everybody else).
    """

    def iteration_s(
        self,
        prefill_tokens: int,
        decode_seqs: int,
        context_tokens: float,
        prefill_pairs: float = 0.0,
    ) -> float:
        """Seconds of one engine iteration.

        Args:
            prefill_tokens: prompt tokens computed in this iteration.
            decode_seqs: sequences that each gain one token.
            context_tokens: KV tokens read by those sequences.
            prefill_pairs: sum over prefill chunks of ``n * (c + n / 2)``, with ``n`` tokens on
                top of ``c`` already computed: the causal attention work.
        """

    def linear(self) -> LinearCost:
        """Best linear form, for the policies and for online calibration."""


class Clock(Protocol):
    """Something that knows what time it is; only the edges hold one."""

    def now(self) -> float:
        """Seconds on a monotonic axis."""


class Planner(Protocol):
    """Turns fleet and demand into prices; implemented by ``solver``."""

    def prices(
        self, demand: Sequence[Outcome], fleet: Sequence[BackendSpec], now: float
    ) -> Mapping[str, float]:
        """Return the price of one engine-second by group, in seconds of delay."""
