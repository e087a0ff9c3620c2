"""How long a request would wait, and what one is told that may not.

A request that finds no open backend would wait for::

    wait = (work served before it + half its own) / (drain rate - what tighter classes take of it)

If that exceeds its patience (latest start minus now; for requests without a target the
``max_wait_s`` of their class), it is rejected at once, with ``wait - patience`` as Retry-After:
the time after which, if nothing more came before it, it would be let in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from router.domain.decision import Reject
from router.domain.slo import Slo
from router.queue.class_room import ClassRoom, Entry
from router.queue.yardstick import Drain

Refusal = Literal["slo_unattainable", "wait_too_long", "queue_timeout", "queue_full", "shed"]
_LEAST_RETRY_S, _MOST_RETRY_S = 1.0, 600.0
_LEAST_URGENT_SHARE = 0.02


def would_wait_s(
    entry: Entry,
    room: ClassRoom,
    drain: Drain,
    prior: float,
    slos: Mapping[str, Slo],
    *,
    least_share: float,
) -> float:
    """How long a request would wait that enters now.

    Args:
        entry: the request.
        room: who waits.
        drain: how fast the queue of its model empties.
        prior: work-seconds per second of the fleet itself.
        slos: targets by class.
        least_share: of the drain rate, what is left to those without a target at least.
    """
    request, model = entry.request, entry.request.model
    rate = drain.rate(prior)
    mine = room.lanes.get(entry.lane)
    ahead = mine.ahead_s(request.tenant, entry.work_s, room.weights) if mine else 0.0
    free = rate
    for (slo_class, name), lane in room.lanes.items():
        if name == model and slo_class != request.slo_class:
            ahead += _before(entry, lane.entries)
    for slo_class, slo in slos.items():
        if slo_class != request.slo_class and _tighter(slo.of_model(model), entry):
            free -= drain.rate_of(slo_class)
    floor = _LEAST_URGENT_SHARE if entry.urgent else least_share
    return (ahead + 0.5 * entry.work_s) / max(free, floor * rate, 1e-9)


def nobody_came(entry: Entry, now: float) -> Reject:
    """The answer to a request that waited in vain for a backend to become usable."""
    return Reject(
        "no_healthy_backend",
        f"No backend of {entry.request.model!r} that could take the request became "
        f"usable within {now - entry.request.arrival_s:.3g} s. Try again shortly.",
        _LEAST_RETRY_S,
    )


def turned_away(reason: Refusal, entry: Entry, wait_s: float, waiting: int, now: float) -> Reject:
    """The answer to a request that may not wait, or not any longer.

    Args:
        reason: why.
        entry: the request.
        wait_s: how long it would have to wait.
        waiting: requests in the queue.
        now: the time.
    """
    request = entry.request
    patience_s = max(entry.deadline_s - now, 0.0)
    retry_s = min(max(wait_s - patience_s, _LEAST_RETRY_S), _MOST_RETRY_S)
    why = {
        "slo_unattainable": f"would have to wait about {wait_s:.3g} s, and its targets "
        f"(TTFT {_target(entry.slo.ttft_s)}, E2E {_target(entry.slo.e2e_s)}) allow "
        f"{patience_s:.3g} s",
        "wait_too_long": f"would have to wait about {wait_s:.3g} s, and its class may wait "
        f"{patience_s:.3g} s",
        "queue_timeout": f"has waited {now - request.arrival_s:.3g} s, as long as its class may",
        "queue_full": f"finds {waiting} requests waiting, as many as may",
        "shed": "gave its place in the full queue to an urgent one",
    }[reason]
    message = (
        f"The fleet is overloaded: this {request.slo_class!r} request for {request.model!r} "
        f"{why}. Try again in {math.ceil(retry_s)} s, or in a class that may wait longer."
    )
    return Reject(reason, message, float(math.ceil(retry_s)))


def _before(entry: Entry, entries: Sequence[tuple[object, Entry]]) -> float:
    """Work of another lane that goes before this request."""
    if entry.urgent:
        latest = entry.latest_start_s
        return sum(e.work_s for _, e in entries if e.urgent and e.latest_start_s <= latest)
    arrival = entry.request.arrival_s
    return sum(e.work_s for _, e in entries if e.urgent or e.request.arrival_s <= arrival)


def _tighter(slo: Slo, entry: Entry) -> bool:
    if not slo.urgent:
        return False
    if not entry.urgent:
        return True
    return (slo.ttft_s or math.inf) < (entry.slo.ttft_s or math.inf)


def _target(value: float | None) -> str:
    return "none" if value is None else f"{value:g} s"
