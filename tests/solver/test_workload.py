"""Counting demand: nothing is lost, nothing negative gets in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.errors import WorkloadError
from router.domain.outcome import Outcome
from solver.buckets import Buckets
from solver.workload import Arrived, Workload, build_workload, workload_from_outcomes
from tests.solver.tiny import work

tokens = st.integers(0, 40_000)
arrivals = st.lists(
    st.builds(
        Arrived,
        arrival_s=st.floats(0, 1000),
        input_tokens=tokens,
        output_tokens=tokens,
        model=st.sampled_from(["a", "b"]),
        slo_class=st.sampled_from(["interactive", "bulk", ""]),
        tenant=st.sampled_from(["x", "y"]),
        cached_tokens=tokens,
    ),
    min_size=1,
    max_size=80,
)


def test_requests_alike_enough_share_a_class_and_its_means() -> None:
    found = build_workload(
        [Arrived(0.0, 600, 40, "m"), Arrived(1.0, 1000, 60, "m"), Arrived(4.0, 5000, 60, "m")],
        default_slo_class="interactive",
    )
    short, long = found.classes
    assert short.name == "m/interactive/in<=1024/out<=128"
    assert (short.prompt_tokens, short.output_tokens) == (800, 50)
    assert short.rate_per_s == pytest.approx(2 / 4)
    assert short.longest_tokens == 1060
    assert long.name == "m/interactive/in<=8192/out<=128"


def test_a_prompt_at_an_edge_belongs_below_it() -> None:
    buckets = Buckets((100, 200), (10,))
    assert buckets.prompt_limit(100) == 100
    assert buckets.prompt_limit(101) == 200
    assert buckets.prompt_limit(201) == float("inf")


@settings(derandomize=True, deadline=None)
@given(arrivals, st.integers(1, 10))
def test_bucketing_and_merging_lose_no_request_and_no_token(
    requests: list[Arrived], most: int
) -> None:
    found = build_workload(requests, duration_s=10.0, max_classes=most)

    def per_second(get: str) -> float:
        return sum(one.rate_per_s * getattr(one, get) for one in found.classes)

    assert found.rate_per_s == pytest.approx(len(requests) / 10)
    assert per_second("prompt_tokens") == pytest.approx(sum(r.input_tokens for r in requests) / 10)
    assert per_second("output_tokens") == pytest.approx(sum(r.output_tokens for r in requests) / 10)
    assert max(one.longest_tokens for one in found.classes) == max(
        r.input_tokens + r.output_tokens for r in requests
    )


@settings(derandomize=True, deadline=None)
@given(arrivals)
def test_merging_never_mixes_models_or_service_classes(requests: list[Arrived]) -> None:
    exact = build_workload(requests, duration_s=1.0, max_classes=1000)
    merged = build_workload(requests, duration_s=1.0, max_classes=1)

    def by_kind(workload: Workload) -> dict[tuple[str, str], float]:
        rates: dict[tuple[str, str], float] = {}
        for one in workload.classes:
            key = one.model, one.slo_class
            rates[key] = rates.get(key, 0.0) + one.rate_per_s
        return rates

    assert by_kind(merged) == pytest.approx(by_kind(exact))
    assert len(merged.classes) == len(by_kind(merged))


def test_tenants_are_one_group_unless_asked() -> None:
    requests = [Arrived(0.0, 10, 10, "m", "", "x"), Arrived(1.0, 10, 10, "m", "", "y")]
    assert len(build_workload(requests).classes) == 1
    apart = build_workload(requests, tenant_group=str.upper)
    assert [one.tenant for one in apart.classes] == ["X", "Y"]
    assert apart.classes[0].name.endswith("/X")


def test_scaling_changes_rates_only() -> None:
    found = Workload((work(2.0),)).scaled(1.5)
    assert found.classes[0].rate_per_s == 3.0
    assert found.classes[0].prompt_tokens == work().prompt_tokens


def _outcome(**fields: object) -> Outcome:
    values = {
        "request_id": "r",
        "model": "m",
        "slo_class": "bulk",
        "tenant": "",
        "backend": "b",
        "status": "completed",
        "arrival_s": 0.0,
        "dispatched_s": 0.0,
        "first_token_s": 0.5,
        "finished_s": 2.0,
        "prompt_tokens": 300,
        "output_tokens": 20,
        "cached_tokens": 100,
        "max_tokens": None,
        "prefilling_at_dispatch": 0,
        "decoding_at_dispatch": 0,
        "predicted_ttft_s": 0.0,
        "predicted_tpot_s": 0.0,
        "predicted_output_tokens": 0.0,
        **fields,
    }
    return Outcome(**values)  # type: ignore[arg-type]


def test_outcomes_count_what_was_computed_and_deduct_cached_prompts() -> None:
    done = [_outcome(), _outcome(status="cancelled"), _outcome(status="failed", output_tokens=0)]
    (found,) = workload_from_outcomes(done, duration_s=4.0).classes
    assert found.rate_per_s == 0.5
    assert found.cached_tokens == 100


def test_an_unknown_number_of_cached_tokens_is_not_a_hit() -> None:
    (found,) = workload_from_outcomes([_outcome(cached_tokens=None)], duration_s=1.0).classes
    assert found.cached_tokens == 0


@pytest.mark.parametrize(
    ("requests", "complaint"),
    [
        ([], "empty"),
        ([Arrived(0.0, 1, 1, "m")], "span 0 s"),
        ([Arrived(0.0, -1, 1, "m")], "arrival 1: -1 prompt"),
        ([Arrived(0.0, 1, 1, "m"), Arrived(1.0, 1, -5, "m")], "arrival 2: 1 prompt and -5"),
        ([Arrived(0.0, 1, 1, "m", cached_tokens=-1)], "arrival 1: -1 cached"),
        ([Arrived(float("nan"), 1, 1, "m")], "time is not a finite number"),
        ([Arrived(0.0, 1, 1), Arrived(1.0, 1, 1)], "no model named"),
    ],
)
def test_senseless_arrivals_are_named(requests: list[Arrived], complaint: str) -> None:
    with pytest.raises(WorkloadError, match=complaint):
        build_workload(requests)


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_senseless_rates_are_named(rate: float) -> None:
    with pytest.raises(WorkloadError, match="the rate must be 0 or more"):
        Workload((work(rate),))


def test_a_class_listed_twice_is_named() -> None:
    with pytest.raises(WorkloadError, match="listed twice"):
        Workload((work(), work()))


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_a_senseless_scale_is_named(factor: float) -> None:
    with pytest.raises(WorkloadError, match="rate scale"):
        Workload((work(),)).scaled(factor)


@pytest.mark.parametrize("edges", [(2, 1), (0, 5), (5, 5)])
def test_bucket_edges_must_rise(edges: tuple[int, ...]) -> None:
    with pytest.raises(WorkloadError, match="bucket edges must rise"):
        Buckets(edges, (1,))
