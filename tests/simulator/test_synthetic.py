"""The built-in workloads have the published statistics (tables of the traces' README)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from router.domain.errors import TraceError, UnknownNameError
from simulator.synthetic import builtin_names, builtin_trace
from simulator.traces.columns import Trace

PUBLISHED = {
    # name: input p50, p90, p99, mean; output p50, p90, p99, mean
    "azure-conv-like": ((1020, 2734, 4142, 1154.7), (129, 424, 601, 211.1)),
    "azure-code-like": ((1469, 5188, 7436, 2047.8), (13, 55, 251, 27.9)),
}
RATES = {"azure-conv-like": 5.53, "azure-code-like": 2.57}


def dispersion(trace: Trace, window_s: float) -> float:
    counts = np.bincount((trace.arrivals() // window_s).astype(int))
    return float(counts.var() / counts.mean())


@pytest.mark.parametrize("name", PUBLISHED)
def test_lengths_have_the_published_quantiles_and_means(name: str) -> None:
    trace = builtin_trace(name, duration_s=4 * 3600, seed=3)

    for tokens, published in zip(trace.lengths(), PUBLISHED[name], strict=True):
        *quantiles, mean = published
        assert np.percentile(tokens, [50, 90, 99]) == pytest.approx(quantiles, rel=0.12)
        assert tokens.mean() == pytest.approx(mean, rel=0.08)


@pytest.mark.parametrize("name", RATES)
def test_the_rate_is_the_published_one(name: str) -> None:
    trace = builtin_trace(name, duration_s=8 * 3600, seed=5)

    assert len(trace) / (8 * 3600) == pytest.approx(RATES[name], rel=0.12)


def test_conversation_is_mildly_bursty_and_code_is_on_and_off() -> None:
    """Published dispersion at 1, 10, 60 s: 1.4, 3.9, 16.1 and 13.2, 71.6, 164 (Poisson: 1)."""
    conv = builtin_trace("azure-conv-like", duration_s=3600, seed=1)
    code = builtin_trace("azure-code-like", duration_s=3600, seed=1)

    assert [dispersion(conv, w) for w in (1, 10, 60)] == pytest.approx([1.4, 3.9, 16.1], rel=0.35)
    assert [dispersion(code, w) for w in (1, 10, 60)] == pytest.approx([13.2, 71.6, 164], rel=0.35)


def test_chats_share_system_prompts_across_sessions_and_history_within_one() -> None:
    trace = builtin_trace("chat-prefix-like", duration_s=600, seed=2)
    by_session: dict[str, list[int]] = {}
    for i in range(len(trace)):
        by_session.setdefault(trace.session[i], []).append(i)
    long_chat = next(turns for turns in by_session.values() if len(turns) >= 3)

    for earlier, later in pairwise(long_chat):
        old, new = trace.prefix_hashes(earlier), trace.prefix_hashes(later)
        assert new[: len(old)] == old
        assert trace.input_tokens[later] > trace.input_tokens[earlier]
    same_service = [
        turns[0] for turns in by_session.values() if trace.tenant[turns[0]] == "service-0"
    ]
    a, b = (trace.prefix_hashes(i) for i in same_service[:2])
    assert a[: 1536 // 64] == b[: 1536 // 64]
    assert not set(a[1536 // 64 :]) & set(b[1536 // 64 :])


@pytest.mark.parametrize("name", builtin_names())
def test_same_seed_same_trace_and_another_seed_another(name: str) -> None:
    one, two, other = (builtin_trace(name, duration_s=300, seed=s) for s in (1, 1, 2))

    assert list(one.records()) == list(two.records())
    assert list(one.records()) != list(other.records())
    assert list(one.arrival_s) == sorted(one.arrival_s)
    assert one.arrival_s[-1] < 300


def test_bad_names_and_durations_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'azure-conv-like'"):
        builtin_trace("azure-conv")
    with pytest.raises(TraceError, match="more than 0 seconds"):
        builtin_trace("azure-conv-like", duration_s=0)
    with pytest.raises(TraceError, match="make it longer"):
        builtin_trace("azure-code-like", duration_s=0.001)
