"""Bending a trace changes what it says it changes, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from router.domain.errors import TraceError
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord
from simulator.traces.transform import (
    apply_max_tokens,
    assign,
    jitter,
    mix,
    scale_rate,
    upsample,
)


def make(arrivals: list[float], **fields: object) -> Trace:
    records = (TraceRecord(t, 100 + i, 10 + i, **fields) for i, t in enumerate(arrivals))  # type: ignore[arg-type]
    return Trace("t").extend(records)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_rate_scaling_divides_timestamps() -> None:
    trace = make([0.0, 1.0, 4.0])

    assert scale_rate(trace, 2.0).arrival_s.tolist() == [0.0, 0.5, 2.0]
    assert trace.arrival_s.tolist() == [0.0, 1.0, 4.0]


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_rate_scaling_needs_a_positive_number(factor: float) -> None:
    with pytest.raises(TraceError, match="above 0"):
        scale_rate(make([0.0]), factor)


def test_jitter_spreads_coarse_ticks_and_keeps_order() -> None:
    ticks = [3.0 * (i // 10) for i in range(300)]

    spread = jitter(make(ticks), 3.0, rng())

    gaps = np.diff(spread.arrivals())
    assert (gaps >= 0).all()
    assert (gaps == 0).sum() == 0
    assert 0 <= spread.arrival_s[0] < 3.0


def test_upsampling_keeps_burstiness_where_poissonizing_would_not() -> None:
    """Counts per window scale with the factor, so variance/mean scales too (Poisson: 1)."""
    arrivals = sorted(np.concatenate([np.linspace(t, t + 5, 50) for t in range(0, 1000, 100)]))
    trace = make([float(t) for t in arrivals])

    more = upsample(trace, 3.0, rng())
    before = np.bincount((trace.arrivals() // 20).astype(int), minlength=50)
    after = np.bincount((more.arrivals() // 20).astype(int), minlength=50)

    assert len(more) == 3 * len(trace)
    assert after.var() / after.mean() == pytest.approx(3 * before.var() / before.mean(), rel=0.05)


def test_upsampling_by_a_fraction_thins() -> None:
    assert len(upsample(make([float(i) for i in range(4000)]), 0.25, rng())) == pytest.approx(
        1000, rel=0.1
    )


def test_copies_share_no_cache_entry_with_the_original() -> None:
    trace = make([0.0], session="s", prefix_hashes=(1, 2), prefix_block_tokens=16)

    original, copy = upsample(trace, 2.0, rng()).records()

    assert not set(original.prefix_hashes) & set(copy.prefix_hashes)
    assert original.session != copy.session


def test_a_mix_is_merged_by_arrival_and_keeps_caches_apart() -> None:
    a = make([0.0, 2.0], model="a", prefix_hashes=(5,), prefix_block_tokens=16)
    b = make([1.0], model="b", prefix_hashes=(5,), prefix_block_tokens=16)

    mixed = mix([a, b])

    assert [record.model for record in mixed.records()] == ["a", "b", "a"]
    assert mixed.prefix_hashes(0) == mixed.prefix_hashes(2) != mixed.prefix_hashes(1)


def test_classes_are_drawn_by_share_and_once_per_session() -> None:
    singles = assign(
        make([float(i) for i in range(2000)]), "slo_class", {"bulk": 1, "interactive": 3}, rng()
    )
    chat = assign(make([0.0, 1.0, 2.0], session="s"), "slo_class", {"a": 1, "b": 1}, rng())

    labels = [singles.slo_class[i] for i in range(len(singles))]
    assert labels.count("bulk") == pytest.approx(500, rel=0.15)
    assert len(chat.slo_class.used()) == 1


def test_shares_that_sum_to_nothing_are_refused() -> None:
    with pytest.raises(TraceError, match="shares of model"):
        assign(make([0.0]), "model", {"a": 0.0}, rng())


def test_the_ceiling_rule_tells_nothing_about_a_single_answer() -> None:
    """I6: the same limit for all, a power of two no answer exceeds."""
    trace = Trace().extend(TraceRecord(0.0, 10, output) for output in (3, 700, 1000))

    limited = apply_max_tokens(trace, "ceiling", rng())

    assert limited.max_tokens.tolist() == [1024, 1024, 1024]


def test_a_fixed_limit_cuts_longer_answers_and_a_known_limit_stays() -> None:
    trace = Trace().extend([TraceRecord(0, 10, 700), TraceRecord(0, 10, 50, max_tokens=60)])

    limited = apply_max_tokens(trace, "512", rng())

    assert limited.max_tokens.tolist() == [512, 60]
    assert limited.output_tokens.tolist() == [512, 50]


def test_no_limit_and_drawn_limits() -> None:
    trace = make([float(i) for i in range(50)])

    assert apply_max_tokens(trace, "none", rng()) is trace
    drawn = apply_max_tokens(trace, "mixed", rng())
    pairs = zip(drawn.max_tokens, drawn.output_tokens, strict=True)
    assert all(limit >= output for limit, output in pairs)
    assert len(set(drawn.max_tokens)) > 1


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TraceError, match=r"unknown max_tokens rule 'many'.*ceiling"):
        apply_max_tokens(make([0.0]), "many", rng())
