"""Seconds per kind of work, from observations: robust, never negative, with their uncertainty.

Relative least squares, reweighted so that an observation that is far off counts less (the weights
of the soft-L1 loss that the catalogue's constants are fitted with), under the constraint that no
work is paid for taking place. The model is linear in all but the knee of the roofline, which is
searched for, and kept only if it describes the observations better. The intervals come from
drawing the observations anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar, nnls

from router.domain.errors import WorkloadError
from router.perf.fit import SOFT_ERROR
from router.perf.measured import MeasuredCost
from router.perf.measurements import Term
from router.perf.roofline import SMAX_EXPONENT
from simulator.live.observe import Observation
from simulator.live.shapes import Kind

Floats = NDArray[np.float64]

COEFFICIENTS = ("step_s", "prefill_s", "seq_s", "context_s", "pair_s", "api_s")
_KNEE_STEP = 2**0.25
KNEES_TOKENS: tuple[float, ...] = tuple(4.0 * _KNEE_STEP**k for k in range(41))
"""Where to look for the knee: 4 to 4,096 tokens."""
KNEE_GAIN = 0.9
"""The knee is one more constant: the loss must fall to this share of the straight line's."""
_REWEIGHTINGS = 20
_DRAWS = 300
_LEAST_STEP_S = 1e-6


@dataclass(frozen=True, slots=True)
class Errors:
    """How well the line describes one kind of observations, in percent.

    Attributes:
        points: how many.
        median, p95: of the absolute error.
        bias: median of the signed error; positive means predicted too slow.
    """

    points: int
    median: float
    p95: float
    bias: float


@dataclass(frozen=True, slots=True)
class CostFit:
    """A measured iteration.

    Attributes:
        cost: the coefficients.
        intervals: 90 % interval of each by name, for this knee.
        fitted, held_back: errors by kind, on what was fitted to and on what was not.
    """

    cost: MeasuredCost
    intervals: Mapping[str, tuple[float, float]]
    fitted: Mapping[Kind, Errors] = field(default_factory=dict)
    held_back: Mapping[Kind, Errors] = field(default_factory=dict)


def fit_cost(observations: Sequence[Observation], rng: np.random.Generator) -> CostFit:
    """Fit ``MeasuredCost``.

    Args:
        observations: of a probe; those held back are only predicted.
        rng: for the intervals.

    Raises:
        WorkloadError: too few observations to tell the kinds of work apart.
    """
    used = [o for o in observations if not o.held_back]
    if not {o.kind for o in used} >= {"prefill", "decode"} or len(used) < len(COEFFICIENTS):
        raise WorkloadError(
            f"{len(used)} usable observation(s) do not tell prompts and answers apart; give the "
            "probe more --seconds"
        )
    times = np.array([o.time_s for o in used])
    knee = _find_knee(used, times)
    rows = _rows(used, knee)
    values, _ = _solve(rows, times)
    draws = [_solve(rows[k], times[k])[0] for k in _redraws(used, rng)]
    low, high = np.percentile(np.array(draws), [5.0, 95.0], axis=0)
    named = dict(zip(COEFFICIENTS, values.tolist(), strict=True))
    named["step_s"] = max(_LEAST_STEP_S, named["step_s"])
    cost = MeasuredCost(**named, knee_tokens=knee)
    return CostFit(
        cost=cost,
        intervals=dict(
            zip(COEFFICIENTS, zip(low.tolist(), high.tolist(), strict=True), strict=True)
        ),
        fitted=_errors(used, cost),
        held_back=_errors([o for o in observations if o.held_back], cost),
    )


def predict_s(cost: MeasuredCost, observation: Observation) -> float:
    """What an observation should have taken."""
    values = np.array([getattr(cost, name) for name in COEFFICIENTS])
    return float((_rows([observation], cost.knee_tokens) @ values)[0])


def _find_knee(observations: Sequence[Observation], times: Floats) -> float:
    """Coarsely, then finely around the best."""
    losses = [_loss(observations, times, knee) for knee in KNEES_TOKENS]
    coarse = KNEES_TOKENS[int(np.argmin(losses))]
    fine = minimize_scalar(
        lambda log: _loss(observations, times, math.exp(log)),
        bounds=(math.log(coarse / _KNEE_STEP), math.log(coarse * _KNEE_STEP)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    straight = _loss(observations, times, 0.0)
    return math.exp(float(fine.x)) if float(fine.fun) < KNEE_GAIN * straight else 0.0


def _loss(observations: Sequence[Observation], times: Floats, knee: float) -> float:
    return _solve(_rows(observations, knee), times)[1]


def _rows(observations: Sequence[Observation], knee: float) -> Floats:
    """One row per observation, in the order of ``COEFFICIENTS``: how much of each it holds."""
    rows = np.zeros((len(observations), len(COEFFICIENTS)))
    for row, observation in zip(rows, observations, strict=True):
        for t in observation.terms:
            tokens = _computed_tokens(t, knee)
            row[:5] += t.weight * np.array(
                (1.0, tokens, t.decode_seqs, t.context_tokens, t.prefill_pairs)
            )
        row[5] = observation.requests
    return rows


def _computed_tokens(term: Term, knee: float) -> float:
    """Tokens paid for at ``prefill_s``: with a knee, a smooth maximum that starts at the knee."""
    if not knee:
        return term.prefill_tokens
    tokens = term.prefill_tokens + term.decode_seqs
    return float((knee**SMAX_EXPONENT + tokens**SMAX_EXPONENT) ** (1.0 / SMAX_EXPONENT))


def _solve(rows: Floats, times: Floats) -> tuple[Floats, float]:
    """The coefficients, and the soft-L1 loss they leave."""
    relative = rows / times[:, None]
    # Columns of like size, or the solver takes the small ones for zero.
    scale = np.maximum(np.abs(relative).max(axis=0), 1e-300)
    weights = np.ones(len(times))
    values, loss = np.zeros(rows.shape[1]), 0.0
    for _ in range(_REWEIGHTINGS):
        values = nnls(relative / scale * weights[:, None], weights)[0] / scale
        off = (relative @ values - 1.0) / SOFT_ERROR
        # The square root of the derivative of the loss.
        weights = (1.0 + off**2) ** -0.25
        loss = float(np.sum(np.sqrt(1.0 + off**2) - 1.0))
    return values, loss


def _redraws(
    observations: Sequence[Observation], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Draws with replacement, within each kind, so that none is ever missing."""
    kinds = np.array([o.kind for o in observations])
    members = [np.flatnonzero(kinds == kind) for kind in dict.fromkeys(kinds.tolist())]
    return [
        np.concatenate([rng.choice(rows, size=len(rows)) for rows in members])
        for _ in range(_DRAWS)
    ]


def _errors(observations: Sequence[Observation], cost: MeasuredCost) -> dict[Kind, Errors]:
    found: dict[Kind, Errors] = {}
    for kind in dict.fromkeys(o.kind for o in observations):
        mine = [o for o in observations if o.kind == kind]
        off = 100.0 * np.array([predict_s(cost, o) / o.time_s - 1.0 for o in mine])
        size = np.abs(off)
        found[kind] = Errors(
            len(mine),
            float(np.median(size)),
            float(np.percentile(size, 95.0)),
            float(np.median(off)),
        )
    return found
