"""Arrival processes have the rate and the burstiness that their names promise."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from router.domain.errors import TraceError, UnknownNameError
from simulator.arrivals import parse_process, retime
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord


def draw(text: str, count: int = 20_000, rate: float = 4.0) -> np.ndarray:
    process = parse_process(text, rate, np.random.default_rng(11))
    return np.array(list(islice(process, count)))


@pytest.mark.parametrize(
    "text", ["constant", "poisson", "gamma:3", "gamma:0.3", "on-off:10:30", "diurnal:0.8:600"]
)
def test_the_mean_rate_is_the_one_asked_for(text: str) -> None:
    times = draw(text, 60_000)

    assert len(times) / times[-1] == pytest.approx(4.0, rel=0.1)
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize(("text", "cv"), [("poisson", 1.0), ("gamma:3", 3.0), ("gamma:0.3", 0.3)])
def test_gaps_have_the_coefficient_of_variation_asked_for(text: str, cv: float) -> None:
    gaps = np.diff(draw(text))

    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.08)


def test_on_off_is_silent_three_quarters_of_the_time() -> None:
    times = draw("on-off:10:30", 60_000)
    occupied = len(np.unique(times.astype(int))) / times[-1]

    assert occupied == pytest.approx(0.25, abs=0.05)


def test_a_day_has_its_night_first_and_its_peak_in_the_middle() -> None:
    """Rate 4 (1 - 0.8 cos): 0.8 per second at night, 7.2 at noon."""
    times = draw("diurnal:0.8:600", 40_000) % 600

    night, noon = ((times < 30) | (times > 570)).sum(), ((times > 270) & (times < 330)).sum()
    assert noon / night == pytest.approx(7.2 / 0.8, rel=0.15)


def test_retiming_keeps_lengths_and_their_order() -> None:
    trace = Trace("t").extend(TraceRecord(0.0, i, i) for i in range(1, 6))
    timed = retime(trace, iter([1.0, 2.0, 3.0, 4.0, 5.0]))

    assert timed.timed
    assert timed.arrival_s.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert timed.input_tokens.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("text", ["gamma", "gamma:x", "gamma:0", "on-off:10", "diurnal:2:60"])
def test_parameters_that_make_no_sense_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(TraceError, match=r"(gamma:3|on-off:10:30|diurnal:0.8:86400)"):
        draw(text)


def test_unknown_processes_and_rates_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="poisson"):
        draw("poison")
    with pytest.raises(TraceError, match="rate must be more than 0"):
        draw("poisson", rate=0.0)
