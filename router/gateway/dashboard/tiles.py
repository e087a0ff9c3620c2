"""One backend as the live page shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from router.fleet_state.backend import BackendState
from router.gateway.dashboard.views import BackendTile, Forecast
from telemetry.accuracy import FIGURES, AccuracyReport, Figure
from telemetry.learner import Estimate


@dataclass(frozen=True, slots=True)
class Spend:
    """What one backend costs now; ``None`` where nobody knows.

    Attributes:
        usd_per_hour: price of its cards.
        watts: power of its cards.
        is_estimate: the power is worked out from the load, not measured.
    """

    usd_per_hour: float | None = None
    watts: float | None = None
    is_estimate: bool = True


def tile_of(  # noqa: PLR0917 - one row of a table
    backend: BackendState,
    now: float,
    rates: tuple[float, float],
    spend: Spend,
    estimate: Estimate | None,
    degraded: tuple[tuple[str, float], ...],
    forecasts: Mapping[Figure, AccuracyReport],
) -> BackendTile:
    """What there is to see of one backend.

    Args:
        backend: as the router knows it.
        now: the time.
        rates: requests and output tokens per second.
        spend: what it costs.
        estimate: how fast it was learned to be.
        degraded: phases that have become slower, and how many times as long they take.
        forecasts: how right predictions of it have been.
    """
    spec, signals = backend.spec, backend.signals
    told = signals.kv_usage if signals else None
    believed = backend.context_tokens / max(1, backend.kv_capacity_tokens)
    learned = estimate is not None and estimate.learned > 0
    return BackendTile(
        name=spec.name,
        gpu=spec.gpu,
        cards=spec.tensor_parallel,
        engine=spec.engine,
        model=spec.model,
        group=spec.group,
        zone=spec.zone,
        state=state_of(backend),
        in_flight=backend.in_flight,
        prefilling=backend.prefilling,
        decoding=backend.decoding,
        engine_waiting=signals.waiting if signals else None,
        kv_usage=min(1.0, told if told is not None else believed),
        kv_is_told=told is not None,
        kv_capacity_tokens=backend.kv_capacity_tokens,
        signal_age_s=max(0.0, now - signals.observed_s) if signals else None,
        prefill_factor=estimate.prefill if estimate and learned else None,
        prefill_deviation=estimate.prefill_deviation if estimate and learned else None,
        decode_factor=estimate.decode if estimate and learned else None,
        decode_deviation=estimate.decode_deviation if estimate and learned else None,
        degraded=degraded,
        price=backend.price,
        requests_per_s=rates[0],
        output_tokens_per_s=rates[1],
        usd_per_hour=spend.usd_per_hour,
        watts=spend.watts,
        watts_are_estimated=spend.is_estimate,
        forecasts=tuple(_forecasts(forecasts)),
    )


def state_of(backend: BackendState) -> str:
    """In a word, as in ``BackendTile``."""
    if backend.draining:
        return "draining"
    if not backend.healthy:
        return "down"
    state = backend.breaker.state
    return "up" if state == "closed" else state


def _forecasts(reports: Mapping[Figure, AccuracyReport]) -> Iterator[Forecast]:
    for figure in FIGURES:
        report = reports.get(figure)
        if report is not None:
            yield Forecast(
                figure,
                report.count,
                report.bias,
                report.p50_error,
                report.p95_error,
                report.coverage,
            )
