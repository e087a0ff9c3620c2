"""Three times what two engines can do, over HTTP: no collapse, the urgent first, quick recovery.

Figures over several loads and seeds: ``python -m tests.fire.overload``; over a whole fleet,
simulated: ``python -m benchmarks.policies.overload``.
"""

from __future__ import annotations

import pytest

from tests.fire.overload import BULK_S, SPANS_S, capacity_of, flood, gateway, goodput, interactive


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_three_times_the_capacity() -> None:
    async with gateway() as gate:
        capacity = await capacity_of(gate, 1)
        everyone = await flood(gate, capacity, 2)
        gate.assert_at_rest()
    begin_s, end_s = SPANS_S[0], SPANS_S[0] + SPANS_S[1]
    assert {a.status for a in everyone} <= {200, 429, 503}
    assert goodput(everyone, begin_s + 4.0, end_s) >= 0.9 * capacity
    assert interactive(everyone, begin_s, end_s) >= 0.95
    bulk = [a for a in everyone if a.slo_class == "bulk" and begin_s <= a.at_s < end_s]
    assert any(a.status in (429, 503) or a.ttft_s > BULK_S / 2 for a in bulk), "bulk makes way"
    assert interactive(everyone, end_s + 2.0, sum(SPANS_S)) >= 0.95, "well again 2 s after"
