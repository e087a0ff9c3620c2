"""Whether a class can meet its SLO on an engine that is loaded to a ceiling.

The ILP stays linear because latency enters as set membership: an engine is run below one of a
few utilization ceilings, and a class may use it only if its 99th percentiles hold there. The
surrogates are rough by design (calibrate them with telemetry) and all rise with utilization.
"""

from __future__ import annotations

import math

from router.domain.slo import Slo
from solver.congestion import Congestion
from solver.service import Service

TPOT_TAIL = 1.5
"""P99 over mean TPOT: prefills of others stall decoding (simulated: 1.3 to 1.7)."""
TTFT_GROWTH = 2.0
"""P99 TTFT grows as ``1 + 2*rho`` while KV slots are free (simulated: 1.4 at 0.5, 1.6 at 0.7)."""
_TAIL_SHARE = 0.01


def p99_ttft_s(service: Service, shared: Congestion, rho: float) -> float:
    """99th percentile of TTFT at utilization ``rho``: prefill among others, and KV slot wait."""
    return service.ttft_s * (1.0 + TTFT_GROWTH * rho) + p99_slot_wait_s(service, shared, rho)


def p99_slot_wait_s(service: Service, shared: Congestion, rho: float) -> float:
    """99th percentile of the wait for one of the batch's slots, M/M/c (Kimura 1994).

    The probability of waiting at all is Sakasegawa's, consistent with ``Congestion.extra``.
    """
    taken = shared.slots_taken(rho)
    if taken <= 0.0:
        return 0.0
    waiting = taken ** (math.sqrt(2.0 * (shared.batch + 1.0)) - 1.0)
    if waiting <= _TAIL_SHARE:
        return 0.0
    if taken >= 1.0:
        return math.inf
    drain_per_s = shared.batch * (1.0 - taken) / service.e2e_s(rho)
    return math.log(waiting / _TAIL_SHARE) / drain_per_s


def p99_tpot_s(service: Service, shared: Congestion, rho: float) -> float:
    """99th percentile of TPOT at utilization ``rho``."""
    return TPOT_TAIL * service.tpot_s / (1.0 - shared.phi * rho)


def slo_excess(
    service: Service, shared: Congestion, slo: Slo, output_tokens: float, rho: float
) -> tuple[str, float]:
    """The target missed worst at ``rho`` and by what factor; a factor of 1 or less is kept.

    Returns:
        Name of the target ("ttft", "tpot", "e2e", or "" without targets) and P99 over target.
    """
    ttft_s, tpot_s = p99_ttft_s(service, shared, rho), p99_tpot_s(service, shared, rho)
    e2e_s = ttft_s + max(0.0, output_tokens - 1) * tpot_s
    pairs = (("ttft", ttft_s, slo.ttft_s), ("tpot", tpot_s, slo.tpot_s), ("e2e", e2e_s, slo.e2e_s))
    missed = [(p99 / target, name) for name, p99, target in pairs if target]
    if not missed:
        return "", 0.0
    factor, name = max(missed)
    return name, factor
