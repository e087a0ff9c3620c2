"""Measured times, from one iteration to a whole request, in the terms of the iteration model.

A measurement is a weighted sum of iterations: one term for a timed iteration, several for a TTFT
(the chunks of a prompt) or a TPOT under load (a decode step plus its share of other prompts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from router.perf.catalog import Catalog
from router.perf.priors import Priors, iteration_model_from
from router.perf.specs import ModelSpec

Phase = Literal["prefill", "decode", "mixed"]
Vector = NDArray[np.float64]


API_S = 0.007
"""Request handling outside the iterations, part of every TTFT: what is left of the TTFT of short
prompts after their one iteration, 8 ms on an A100 (vLLM 0.20.1, ree2raz) and 6 ms on an H100
(vLLM 0.21, yobitelcomm)."""


@dataclass(frozen=True, slots=True)
class Term:
    """Iterations of one shape.

    Attributes:
        prefill_tokens, decode_seqs, context_tokens, prefill_pairs: as in ``PerfModel``.
        weight: how many of them.
    """

    prefill_tokens: float
    decode_seqs: float
    context_tokens: float
    prefill_pairs: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What was measured on: one line of hardware, model and software.

    Attributes:
        gpu, model, quantization: keys of the catalogue.
        tensor_parallel: cards.
        engine: which software, as the source words it.
        blocks_only: whether the output head was left out of the measurement.
    """

    gpu: str
    model: str
    engine: str
    tensor_parallel: int = 1
    quantization: str = "fp16"
    blocks_only: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured time.

    Attributes:
        setup: what it was measured on.
        phase: which phase dominates it.
        terms: the iterations it consists of.
        time_s: the measured time.
        extra_s: time outside the iterations.
    """

    setup: Setup
    phase: Phase
    terms: tuple[Term, ...]
    time_s: float
    extra_s: float = 0.0


def prefill_terms(prompt_tokens: int, chunk_tokens: int) -> tuple[Term, ...]:
    """The iterations of one prompt alone in the engine."""
    terms = []
    for done in range(0, prompt_tokens, chunk_tokens):
        now = min(chunk_tokens, prompt_tokens - done)
        terms.append(Term(now, 0, 0.0, now * (done + now / 2)))
    return tuple(terms)


def loaded_decode_terms(
    concurrency: int, prompt_tokens: float, output_tokens: float
) -> tuple[Term, ...]:
    """One output token at a steady concurrency, others' prefills included.

    While a request emits its ``output_tokens``, each of the other ``concurrency - 1`` clients
    starts once: every token carries that share of (an iteration with a prompt - one without).
    """
    context = concurrency * (prompt_tokens + output_tokens / 2)
    share = (concurrency - 1) / output_tokens
    decode = Term(0, concurrency, context, weight=1.0 - share)
    mixed = Term(prompt_tokens, concurrency, context, prompt_tokens**2 / 2, weight=share)
    return (decode, mixed) if share else (decode,)


def predict(measurements: Sequence[Measurement], priors: Priors, catalog: Catalog) -> Vector:
    """Predicted time of each measurement, in seconds, all with the same constants."""
    predicted = np.empty(len(measurements))
    for setup in dict.fromkeys(m.setup for m in measurements):
        rows = [i for i, m in enumerate(measurements) if m.setup == setup]
        predicted[rows] = _predict_one_setup([measurements[i] for i in rows], priors, catalog)
    return predicted


def relative_errors(
    measurements: Sequence[Measurement], priors: Priors, catalog: Catalog
) -> Vector:
    """(predicted - measured) / measured of each."""
    measured = np.array([m.time_s for m in measurements])
    errors: Vector = predict(measurements, priors, catalog) / measured - 1.0
    return errors


def _predict_one_setup(
    measurements: Sequence[Measurement], priors: Priors, catalog: Catalog
) -> Vector:
    setup = measurements[0].setup
    model = catalog.model(setup.model)
    iteration = iteration_model_from(
        priors,
        catalog.gpu(setup.gpu),
        _without_head(model) if setup.blocks_only else model,
        catalog.quantization(setup.quantization),
        setup.tensor_parallel,
    )
    owner = [i for i, m in enumerate(measurements) for _ in m.terms]
    columns = np.array(
        [
            (t.prefill_tokens, t.decode_seqs, t.context_tokens, t.prefill_pairs, t.weight)
            for m in measurements
            for t in m.terms
        ],
        dtype=float,
    ).T
    total = np.array([m.extra_s for m in measurements])
    np.add.at(total, owner, iteration.times_s(*columns[:4]) * columns[4])
    return total


def _without_head(model: ModelSpec) -> ModelSpec:
    return replace(model, parameters=model.block_parameters, vocab_size=0)
