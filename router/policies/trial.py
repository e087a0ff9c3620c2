"""A second policy on live traffic: as a shadow that only watches, or as a canary with a share.

The shadow is asked about every request, with the same candidates and at the same moment, and its
answer is compared and thrown away. Both are judged by the same belief: the predicted TTFT and E2E
of the request at the backend that each chose. The shadow never sees a fleet that its own choices
would have made, so what it shows is the regret of single decisions, not of a different history;
``motley whatif`` replays that.

The canary decides a fixed share of the requests for real. Which ones follows from the request's
id alone, so a replay of the decision log decides alike, and whoever sees an outcome knows whose
it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from router.domain.outcome import Outcome
from router.domain.protocols import (
    CacheBelief,
    CacheNews,
    DispatchListener,
    Hold,
    LossListener,
    Observer,
    Policy,
    PrefixAudit,
    PrefixHints,
    Queues,
    Recalls,
    Taken,
)
from router.domain.request import Request
from router.domain.state import BackendView
from router.perf.estimate import tpot_s, ttft_s

_WHOLE = 2**32


def is_canary(request_id: str, share: float) -> bool:
    """Whether the canary decides this request."""
    return crc32(request_id.encode()) < share * _WHOLE


@dataclass(slots=True)
class Comparison:
    """One decision of both policies.

    Attributes:
        now: when.
        backend, shadow_backend: who was chosen; ``None`` for waiting.
        ttft_s, shadow_ttft_s: predicted, wait so far included; ``None`` where one waits.
        e2e_s, shadow_e2e_s: likewise.
    """

    now: float
    backend: str | None
    shadow_backend: str | None
    ttft_s: float | None
    shadow_ttft_s: float | None
    e2e_s: float | None
    shadow_e2e_s: float | None


class Trial:
    """The policy in force, and beside it a shadow, a canary, or both.

    Attributes:
        main: decides.
        shadow: is asked and not obeyed.
        canary: decides its share.
        share: of the requests, from 0 to 1.
        told: hears every comparison; set by whoever looks on.
    """

    def __init__(
        self,
        main: Policy,
        *,
        shadow: Policy | None = None,
        canary: Policy | None = None,
        share: float = 0.0,
    ) -> None:
        self.main, self.shadow, self.canary, self.share = main, shadow, canary, share
        self.told: Callable[[Comparison], None] | None = None
        everyone = [one for one in (main, shadow, canary) if one is not None]
        self._observers = [one for one in everyone if isinstance(one, Observer)]
        self._listeners = [one for one in everyone if isinstance(one, DispatchListener)]
        self._hinted = [one for one in everyone if isinstance(one, PrefixHints)]
        self._followers = [one for one in everyone if isinstance(one, CacheNews)]
        self._losers = [one for one in everyone if isinstance(one, LossListener)]
        self._recalling = [one for one in everyone if isinstance(one, Recalls)]

    def decides(self, request: Request) -> Policy:
        """Who decides this request for real."""
        if self.canary is not None and is_canary(request.request_id, self.share):
            return self.canary
        return self.main

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | Hold | None:
        """What the policy in force says, or the canary if the request is one of its own."""
        return self.choose_or_queue(request, candidates, (), now)

    def choose_or_queue(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        taken: Sequence[Taken],
        now: float,
    ) -> BackendView | Hold | None:
        """The same, where others wait already; a shadow is asked for what is free."""
        decides = self.decides(request)
        if taken and isinstance(decides, Queues):
            chosen = decides.choose_or_queue(request, candidates, taken, now)
        else:
            chosen = decides.choose(request, candidates, now)
        if decides is self.canary:
            return chosen
        if self.shadow is not None and self.told is not None:
            other = self.shadow.choose(request, candidates, now)
            self.told(_compare(request, chosen, other, now))
        return chosen

    def observe(self, outcome: Outcome) -> None:
        """All of them learn from everything that was really done."""
        for one in self._observers:
            one.observe(outcome)

    def known(self) -> dict[str, float]:
        """What the policy in force has learned."""
        return self.main.known() if isinstance(self.main, Recalls) else {}

    def recall(self, known: Mapping[str, float]) -> None:
        """All that can use it begin with what was known before a restart."""
        for one in self._recalling:
            one.recall(known)

    def dispatched(self, request: Request, backend: BackendView, now: float) -> int:
        """All of them hear what was sent; whoever decided says what is cached."""
        decided: object = self.decides(request)
        cached = 0
        for one in self._listeners:
            said = one.dispatched(request, backend, now)
            if one is decided:
                cached = said
        return cached

    def hint(self, backend: BackendView, hashes: Sequence[int], block_tokens: int) -> None:
        """All that can use it hear what another replica of the router sent."""
        for one in self._hinted:
            one.hint(backend, hashes, block_tokens)

    def cached(
        self,
        backend: BackendView,
        stored: Sequence[int],
        evicted: Sequence[int],
        block_tokens: int,
    ) -> None:
        """All that can use it hear what an engine says of its cache."""
        for one in self._followers:
            one.cached(backend, stored, evicted, block_tokens)

    def believed_cached(self, request: Request, backend: BackendView) -> int:
        """What whoever decides this request believes."""
        decides = self.decides(request)
        return decides.believed_cached(request, backend) if isinstance(decides, CacheBelief) else 0

    @property
    def prefix_audit(self) -> Mapping[str, list[int]]:
        """That of the policy in force."""
        return self.main.prefix_audit if isinstance(self.main, PrefixAudit) else {}

    def lost(self, backend: str) -> None:
        """All of them forget what they knew of a backend that left or fell ill."""
        for one in self._losers:
            one.lost(backend)


def decider(policy: object, request: Request) -> object:
    """Who really decides a request: a policy itself, or the one of a trial."""
    return policy.decides(request) if isinstance(policy, Trial) else policy


def _compare(
    request: Request, mine: BackendView | Hold | None, other: BackendView | Hold | None, now: float
) -> Comparison:
    one, two = _predicted(request, mine, now), _predicted(request, other, now)
    return Comparison(now, one[0], two[0], one[1], two[1], one[2], two[2])


def _predicted(
    request: Request, chosen: BackendView | Hold | None, now: float
) -> tuple[str | None, float | None, float | None]:
    if chosen is None or isinstance(chosen, Hold):
        return None, None, None
    output = max(1.0, request.forecast.mean_tokens)
    first_s = now - request.arrival_s + ttft_s(chosen, request.prompt_tokens, now)
    rest_s = (output - 1.0) * tpot_s(chosen, request.prompt_tokens, output)
    return chosen.spec.name, first_s, first_s + rest_s


def with_trial(make: Callable[[Mapping[str, Any]], Policy], recipe: Mapping[str, Any]) -> Policy:
    """Build a policy, and what stands beside it if the recipe says so.

    Args:
        make: builds one policy of ``name``, ``params``, ``seed`` and ``slos``.
        recipe: these, and perhaps ``shadow`` and ``canary``: their ``name`` and ``params``, the
            canary's ``share``.
    """
    main = make(recipe)
    shadow, canary = recipe.get("shadow"), recipe.get("canary")
    if not shadow and not canary:
        return main

    def beside(said: Mapping[str, Any] | None) -> Policy | None:
        if not said:
            return None
        return make({**recipe, "name": said["name"], "params": said["params"]})

    share = canary["share"] if canary else 0.0
    return Trial(main, shadow=beside(shadow), canary=beside(canary), share=share)
