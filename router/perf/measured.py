"""A live engine's iteration time as measured, in place of everything the catalogue says.

The constants of ``Priors`` are shares of a known card's peaks and carry over to other models. What
``motley calibrate --url`` measures needs no card: one engine, one model, so many seconds per kind
of work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from router.domain.errors import ConfigError
from router.perf.roofline import IterationModel

REQUIRED = ("step_s", "prefill_s", "seq_s", "context_s")


@dataclass(frozen=True, slots=True)
class MeasuredCost:
    """Seconds of each kind of work in one engine.

    A straight line, or, with a knee, the roofline of ``IterationModel``: up to about
    ``knee_tokens`` an iteration takes as long as reading the weights, beyond it grows by
    ``prefill_s`` per token. On a GPU the line alone is a fifth off at 2,000 prompt tokens when it
    is right for a few hundred.

    Attributes:
        step_s: fixed cost of any iteration; reading the weights included if there is no knee.
        prefill_s: per prompt token; with a knee, per decoding sequence as well.
        seq_s: per decoding sequence, besides that.
        context_s: per KV token read by a decoding sequence.
        pair_s: per pair of tokens in prefill attention (``prefill_pairs``).
        knee_tokens: tokens of one iteration that take as long to compute as the weights to read;
            0 for a straight line.
        api_s: per request, outside the iterations: parsing, scheduling, the network. Part of
            every time to first token, and of no iteration.
    """

    step_s: float
    prefill_s: float
    seq_s: float
    context_s: float
    pair_s: float = 0.0
    knee_tokens: float = 0.0
    api_s: float = 0.0

    def iteration_model(self) -> IterationModel:
        """The same as an iteration model."""
        token_s = self.prefill_s if self.knee_tokens else 0.0
        return IterationModel(
            step_s=self.step_s,
            seq_s=self.seq_s,
            prefill_comm_s=0.0 if self.knee_tokens else self.prefill_s,
            weights_s=self.knee_tokens * self.prefill_s,
            prefill_token_s=token_s,
            decode_token_s=token_s,
            context_s=self.context_s,
            pair_s=self.pair_s,
        )


MEASURED_NAMES = frozenset(f.name for f in fields(MeasuredCost))


def measured_cost(values: Mapping[str, float]) -> MeasuredCost | None:
    """The measured iteration among the constants of an override; ``None`` if there is none.

    Raises:
        ConfigError: half an iteration, or numbers that no engine has.
    """
    found = {name: value for name, value in values.items() if name in MEASURED_NAMES}
    if not found:
        return None
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise ConfigError(
            f"override: {', '.join(found)} without {', '.join(missing)}; a measured iteration "
            f"needs {', '.join(REQUIRED)} together, as motley calibrate --url writes them"
        )
    for name, value in found.items():
        if not (value >= 0.0 and math.isfinite(value)):
            raise ConfigError(f"override: {name} must be 0 or more, not {value}")
    if found["step_s"] == 0.0:
        raise ConfigError("override: step_s must be positive: no iteration is free")
    return MeasuredCost(**found)
