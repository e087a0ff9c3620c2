"""One attempt in flight, as its backend counts it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from router.domain.outcome import Meanwhile
from router.domain.request import Request
from router.health.breaker import NO_PROBE

if TYPE_CHECKING:
    from router.fleet_state.backend import BackendState


class Flight:
    """One attempt in flight.

    ``prefill`` is the other half of an attempt that two backends share, ``prefilled_s`` when that
    half was over.
    """

    __slots__ = (
        "backend",
        "before",
        "decoding",
        "decoding_at_dispatch",
        "dispatched_s",
        "first_token_s",
        "fresh_tokens",
        "output_tokens",
        "pairs",
        "predicted_tpot_s",
        "predicted_ttft_s",
        "prefill",
        "prefilled_s",
        "prefilling_at_dispatch",
        "probe",
        "prompt_tokens",
        "request",
        "residual_tokens",
        "tried",
    )

    def __init__(
        self,
        request: Request,
        backend: BackendState,
        now: float,
        tried: frozenset[str],
        cached_tokens: int = 0,
    ) -> None:
        self.request = request
        self.backend = backend
        self.dispatched_s = now
        self.first_token_s: float | None = None
        self.decoding = False
        self.prompt_tokens = prompt = request.prompt_tokens
        self.fresh_tokens = fresh = prompt - cached_tokens
        self.pairs = fresh * (cached_tokens + 0.5 * fresh)
        self.output_tokens = request.forecast.mean_tokens
        self.residual_tokens = request.forecast.residual_tokens
        self.prefilling_at_dispatch = backend.prefilling
        self.decoding_at_dispatch = backend.decoding
        self.predicted_ttft_s = math.nan
        self.predicted_tpot_s = math.nan
        self.tried = tried
        self.probe = NO_PROBE
        self.prefill: Flight | None = None
        self.prefilled_s: float | None = None
        self.before: Meanwhile | None = None

    def meanwhile(self) -> Meanwhile | None:
        """What the backend did since the first token came."""
        before = self.before
        if before is None:
            return None
        work = self.backend.work()
        return Meanwhile(
            work[0] - before[0],
            work[1] - before[1],
            work[2] - before[2],
            work[3] - before[3],
            work[4] - before[4],
        )
