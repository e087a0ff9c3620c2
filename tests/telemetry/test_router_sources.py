"""Every figure of the dispatcher that ``/metrics`` shows."""

from __future__ import annotations

from router.config.build import build_dispatcher
from router.config.load import load_config
from router.domain.request import Request
from router.domain.state import EngineSignals
from telemetry.router_sources import ask_dispatcher
from tests.telemetry.test_metric_sources import series
from tests.telemetry.test_metrics import gateway, value


def test_the_dispatcher_tells_counts_health_signals_and_prices() -> None:
    config = load_config(
        {"backends": [{"gpu": "a100-80", "count": 2, "engine": "vllm", "model": "llama-3.1-8b"}]}
    )
    dispatcher, metrics = build_dispatcher(config), gateway()
    ask_dispatcher(metrics, dispatcher)
    dispatcher.dispatch(Request("r", "llama-3.1-8b", 0.0, 100), 0.0)
    dispatcher.scrape("a100-80-0", EngineSignals(0.0, running=7, kv_usage=0.5), 0.0)
    dispatcher.set_health("a100-80-1", healthy=False, now=0.0)
    dispatcher.set_prices({"a100-80/vllm/llama-3.1-8b": 0.25}, 0.0)
    flying = series(metrics, "motley_requests_in_flight")
    assert sum(flying.values()) == 1
    assert len(flying) == 4
    assert value(metrics, "motley_queue_depth") == 0
    assert value(metrics, "motley_backend_up", backend="a100-80-0") == 1
    assert value(metrics, "motley_backend_up", backend="a100-80-1") == 0
    assert value(metrics, "motley_breaker_state", backend="a100-80-0") == 0
    assert value(metrics, "motley_engine_running", backend="a100-80-0") == 7
    assert value(metrics, "motley_price_ratio", group="a100-80/vllm/llama-3.1-8b") == 0.25
    # The other backend was never scraped, and this one does not tell: no series, not 0.
    assert len(series(metrics, "motley_engine_running")) == 1
    assert series(metrics, "motley_engine_waiting") == {}
