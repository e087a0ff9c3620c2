"""The exposition, read back by Prometheus' own parser; the table, which is also the manual."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from telemetry import metric_table as table
from telemetry.histogram import Histogram
from telemetry.metrics import MOST_MODELS, GatewayMetrics
from tests.telemetry.tiny_engine import outcome


def gateway(**more: object) -> GatewayMetrics:
    return GatewayMetrics(policy="motley", version="0.1.0", **more)  # type: ignore[arg-type]


def samples(metrics: GatewayMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.exposition()[0].decode()
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def value(metrics: GatewayMetrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


ON = {"model": "m", "backend": "b"}


def test_a_completed_request_is_counted_everywhere() -> None:
    metrics = gateway()
    metrics.observe(
        outcome(first_s=0.2, finished_s=2.2, prompt=100, cached=64, output=101, tenant="t")
    )
    assert value(metrics, "motley_attempts_total", **ON, policy="motley", status="completed") == 1
    assert value(metrics, "motley_time_to_first_token_seconds_sum", **ON) == pytest.approx(0.2)
    assert value(metrics, "motley_time_per_output_token_seconds_sum", **ON) == pytest.approx(0.02)
    assert value(metrics, "motley_request_duration_seconds_count", **ON) == 1
    assert value(metrics, "motley_prompt_tokens_total", **ON) == 100
    assert value(metrics, "motley_cached_prompt_tokens_total", **ON) == 64
    assert value(metrics, "motley_output_tokens_total", **ON) == 101
    assert value(metrics, "motley_tenant_tokens_total", tenant="t", kind="output") == 101


def test_a_failed_attempt_has_a_status_and_no_latency() -> None:
    metrics = gateway()
    metrics.observe(outcome(status="failed", first_s=None, output=0))
    assert value(metrics, "motley_attempts_total", **ON, policy="motley", status="failed") == 1
    assert value(metrics, "motley_request_duration_seconds_count", **ON) == 0


def test_what_the_gateway_tells_itself() -> None:
    metrics = gateway(models=["m"])
    metrics.answered("m", "interactive", 200)
    metrics.answered("m", "interactive", 200)
    metrics.rejected("m", "queue_full")
    metrics.retried("b", "connect")
    metrics.waited("m", 0.02)
    metrics.worked("decide", 4e-5)
    labels = {"model": "m", "slo_class": "interactive", "code": "200"}
    assert value(metrics, "motley_requests_total", **labels) == 2
    assert value(metrics, "motley_rejected_total", model="m", reason="queue_full") == 1
    assert value(metrics, "motley_retries_total", backend="b", reason="connect") == 1
    assert value(metrics, "motley_queue_wait_seconds_bucket", model="m", le="0.05") == 1
    assert value(metrics, "motley_queue_wait_seconds_bucket", model="m", le="0.01") == 0
    overhead = "motley_gateway_overhead_seconds_bucket"
    assert value(metrics, overhead, stage="decide", le="5e-05") == 1


def test_a_bound_belongs_to_its_own_bucket() -> None:
    """Prometheus buckets are ``le``: less than or equal."""
    histogram = Histogram((1.0, 2.0))
    for number in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.add(number)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 7.5


def test_sources_are_asked_when_the_page_is_read() -> None:
    metrics, depth = gateway(), [3.0]
    metrics.ask(table.QUEUE_DEPTH, lambda: [((), depth[0])])
    assert value(metrics, "motley_queue_depth") == 3
    depth[0] = 4.0
    assert value(metrics, "motley_queue_depth") == 4


def test_models_that_clients_invent_are_capped_and_the_operators_are_not() -> None:
    metrics = gateway(models=["mine"])
    for n in range(3 * MOST_MODELS):
        metrics.observe(outcome(model=f"x{n}"))
        metrics.rejected(f"y{n}", "unknown_model")
    metrics.observe(outcome(model="mine"))
    found = samples(metrics)
    series = [key for key in found if key[0] == "motley_prompt_tokens_total"]
    assert len(series) <= MOST_MODELS + 1
    assert value(metrics, "motley_prompt_tokens_total", model="mine", backend="b") == 100
    assert sum(found[key] for key in series) == 100 * (3 * MOST_MODELS + 1)
    assert value(metrics, "motley_labels_capped_total", label="model") > 0


def test_two_gateways_live_in_one_process() -> None:
    one, two = gateway(), gateway()
    one.observe(outcome())
    assert value(one, "motley_prompt_tokens_total", **ON) == 100
    assert ("motley_prompt_tokens_total", tuple(sorted(ON.items()))) not in samples(two)


def test_a_backend_that_left_takes_its_series_along() -> None:
    metrics = gateway()
    metrics.observe(outcome())
    metrics.forget("b")
    assert not any(dict(labels).get("backend") for _, labels in samples(metrics))


def test_every_row_of_the_table_is_exported_with_its_help() -> None:
    text = gateway().exposition()[0].decode()
    for metric in table.TABLE:
        assert f"# HELP {metric.name} {metric.help}\n" in text
        assert f"# TYPE {metric.name} {metric.kind}\n" in text


def test_names_follow_the_conventions() -> None:
    names = [metric.name for metric in table.TABLE]
    assert len(set(names)) == len(names)
    for metric in table.TABLE:
        assert re.fullmatch(r"motley_[a-z0-9_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        if metric.kind == "histogram":
            assert metric.name.endswith("_seconds")


def test_every_constant_is_in_the_table() -> None:
    constants = {v for v in vars(table).values() if isinstance(v, table.Metric)}
    assert constants == set(table.TABLE)


def test_the_documentation_names_every_metric_once() -> None:
    lines = table.markdown().splitlines()
    assert len(lines) == 2 + len(table.TABLE)
    for metric, line in zip(table.TABLE, lines[2:], strict=True):
        assert line.startswith(f"| `{metric.name}` | {metric.kind} |")


def test_many_values_at_once_are_the_same_as_one_by_one() -> None:
    bounds = (0.1, 1.0, 10.0)
    values = [0.1, 0.05, 1.0, 1.1, 99.0, 10.0] * 32
    one_by_one, at_once = Histogram(bounds), Histogram(bounds)
    for value in values:
        one_by_one.add(value)
    at_once.add_all(values)
    assert at_once.counts == one_by_one.counts
    assert at_once.total == pytest.approx(one_by_one.total)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.floats(allow_nan=False))
def test_prometheus_reads_whatever_is_in_a_label(tenant: str, figure: float) -> None:
    metrics = gateway()
    metrics.ask(table.POWER, lambda: [((tenant, "prior"), figure)])
    found = {k: v for k, v in samples(metrics).items() if k[0] == "motley_power_watts"}
    assert found == {("motley_power_watts", (("backend", tenant), ("source", "prior"))): figure}


def test_a_large_exposition_comes_in_small_pieces() -> None:
    """Between two of them the event loop answers requests."""
    metrics = gateway()
    for n in range(300):
        metrics.observe(outcome(backend=f"b{n}"))
    pieces = list(metrics.pieces())
    assert len(pieces) > 30
    assert max(map(len, pieces)) < len("".join(pieces)) / 10


def test_a_histogram_counts_up_to_infinity() -> None:
    metrics = gateway()
    for seconds in (0.00001, 0.0003, 99.0):
        metrics.worked("dispatch", seconds)
    buckets = {
        dict(labels)["le"]: count
        for (name, labels), count in samples(metrics).items()
        if name == "motley_gateway_overhead_seconds_bucket"
    }
    assert (buckets["2e-05"], buckets["0.0003"], buckets["0.5"], buckets["+Inf"]) == (1, 2, 2, 3)
    assert value(metrics, "motley_gateway_overhead_seconds_count", stage="dispatch") == 3
    assert value(metrics, "motley_gateway_overhead_seconds_sum", stage="dispatch") > 99.0
