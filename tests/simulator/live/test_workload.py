"""A trace is made to fit: its lengths, its load, its duration."""

import pytest

from router.domain.errors import TraceError
from router.perf.measured import MeasuredCost
from simulator.live.workload import Scaling, capacity_per_s, fit_trace, offered_per_s
from simulator.replica.config import ReplicaConfig
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord

CONFIG = ReplicaConfig(kv_capacity_tokens=16_000, max_context_tokens=1_000, max_num_seqs=10)
MODEL = MeasuredCost(step_s=0.1, prefill_s=0.001, seq_s=0.0, context_s=0.0).iteration_model()


def trace(count=600, gap_s=1.0, inputs=100, outputs=20, **fields):
    records = (TraceRecord(gap_s * i, inputs, outputs, **fields) for i in range(count))
    return Trace("even").extend(records)


def test_capacity_is_a_full_batch_all_the_time():
    # A request costs its prompt, 0.1 s, and a tenth of 20 iterations of 0.1 s.
    assert capacity_per_s(trace(), CONFIG, MODEL) == pytest.approx(1 / (0.1 + 0.2))


def test_memory_bounds_the_batch():
    small = ReplicaConfig(kv_capacity_tokens=512, max_context_tokens=500, max_num_seqs=10)
    # 110 tokens each at half of their answers: four fit.
    assert capacity_per_s(trace(), small, MODEL) == pytest.approx(1 / (0.1 + 20 * 0.1 / 4))


def test_the_load_is_a_share_of_the_capacity():
    fitted, _ = fit_trace(trace(count=3_600), Scaling(minutes=2, load=0.6), CONFIG, MODEL)
    assert offered_per_s(fitted) == pytest.approx(0.6 / 0.3, rel=0.01)
    assert fitted.span_s < 120.0


def test_or_the_rate_is_scaled_by_hand():
    fitted, notes = fit_trace(trace(), Scaling(minutes=1, rate_scale=2.0), CONFIG, MODEL)
    assert len(fitted) == 120
    assert "times divided by 2" in notes[0]


def test_a_leading_silence_is_skipped():
    late = Trace("late").extend(TraceRecord(900.0 + i, 10, 5) for i in range(50))
    fitted, _ = fit_trace(late, Scaling(minutes=1, rate_scale=1.0), CONFIG, MODEL)
    assert fitted.arrival_s[0] == 0.0
    assert len(fitted) == 50


def test_lengths_are_scaled_and_never_vanish():
    scaling = Scaling(minutes=1, rate_scale=1.0, length_scale=0.03)
    fitted, _ = fit_trace(trace(), scaling, CONFIG, MODEL)
    assert (fitted.input_tokens[0], fitted.output_tokens[0]) == (3, 1)


def test_the_limit_is_the_length_as_it_will_be_asked_for():
    scaling = Scaling(minutes=1, rate_scale=1.0)
    fitted, _ = fit_trace(trace(model="other", max_tokens=500), scaling, CONFIG, MODEL)
    assert (fitted.max_tokens[0], fitted.model[0]) == (20, "")


def test_what_does_not_fit_is_left_out_and_counted():
    mixed = trace(count=60)
    mixed.append(TraceRecord(60.0, 990, 20))
    scaling = Scaling(minutes=5, rate_scale=1.0)
    fitted, notes = fit_trace(mixed, scaling, CONFIG, MODEL)
    assert len(fitted) == 60
    assert any(note.startswith("1 of 61 requests") for note in notes)


@pytest.mark.parametrize(
    ("recorded", "scaling", "named"),
    [
        (trace(inputs=2_000), Scaling(), "--scale-lengths"),
        (trace(gap_s=0.0), Scaling(), "no arrival times"),
        (
            trace(prefix_hashes=(1, 2), prefix_block_tokens=16),
            Scaling(length_scale=0.5),
            "shares prefixes",
        ),
    ],
)
def test_what_cannot_be_fitted_says_so(recorded, scaling, named):
    with pytest.raises(TraceError, match=named):
        fit_trace(recorded, scaling, CONFIG, MODEL)


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"load": -1}, {"length_scale": float("inf")}])
def test_numbers_that_make_no_sense(wrong):
    with pytest.raises(TraceError, match="above 0"):
        Scaling(**wrong)
