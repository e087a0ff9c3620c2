"""A live engine's iteration time as measured, in place of everything the catalogue says.

The constants of ``Priors`` are shares of a known card's peaks and carry over to other models. What
``motley calibrate --url`` measures needs no card: one engine, one model, one straight line per
kind of work. A plain sum is as good as the smooth maximum within the range it was measured in
(3.7 % against 3.3 % median error on 719 points of four GPUs, Helix), and is linear in what is
fitted.
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
    """Seconds of each kind of work in one engine; see ``IterationModel`` and ``LinearCost``.

    Attributes:
        step_s: fixed cost of any iteration, the reading of the weights included.
        prefill_s: per prompt token.
        seq_s: per decoding sequence.
        context_s: per KV token read by a decoding sequence.
        pair_s: per pair of tokens in prefill attention (``prefill_pairs``).
        api_s: per request, outside the iterations: parsing, scheduling, the network. Part of
            every time to first token, and of no iteration.
    """

    step_s: float
    prefill_s: float
    seq_s: float
    context_s: float
    pair_s: float = 0.0
    api_s: float = 0.0

    def iteration_model(self) -> IterationModel:
        """The straight line as an iteration model: no roofline, so no smooth maximum either."""
        return IterationModel(
            step_s=self.step_s,
            seq_s=self.seq_s,
            prefill_comm_s=self.prefill_s,
            weights_s=0.0,
            prefill_token_s=0.0,
            decode_token_s=0.0,
            context_s=self.context_s,
            pair_s=self.pair_s,
        )


MEASURED_NAMES = frozenset(f.name for f in fields(MeasuredCost))


def measured_cost(values: Mapping[str, float]) -> MeasuredCost | None:
    """The measured line among the constants of an override; ``None`` if there is none.

    Raises:
        ConfigError: half a line, or numbers that no engine has.
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
            raise ConfigError(f"override: {name} must be 0 or more seconds, not {value}")
    if found["step_s"] == 0.0:
        raise ConfigError("override: step_s must be positive: no iteration is free")
    return MeasuredCost(**found)
