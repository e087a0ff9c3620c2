"""What a plan minimises: requests in the system, and everything else at its exchange rate."""

from __future__ import annotations

from typing import Any

from solver.terms import Numbers, Unknowns


def base_latency(unknowns: Unknowns, numbers: Numbers) -> Any:
    """Requests in the system if nobody slowed anybody (Little's law on the lone E2E)."""
    return numbers.flow_cost @ unknowns.flow


def congestion_delay(unknowns: Unknowns, numbers: Numbers) -> Any:
    """Requests in the system because of load, and of KV memory beyond its ceiling."""
    return numbers.extra_cost @ unknowns.extra + numbers.overfull_cost @ unknowns.overfull


def rent_and_idle_power(unknowns: Unknowns, numbers: Numbers) -> Any:
    """Rent of the replicas and the power they draw doing nothing."""
    return numbers.replica_cost @ unknowns.replicas


def busy_power(unknowns: Unknowns, numbers: Numbers) -> Any:
    """Power drawn by load on top of idling."""
    return numbers.load_cost @ unknowns.load


def turned_away(unknowns: Unknowns, numbers: Numbers) -> Any:
    """Unserved requests, and the worst tenant group's share of them."""
    return numbers.unserved_cost @ unknowns.unserved + numbers.worst_cost * unknowns.worst


def switching(unknowns: Unknowns, numbers: Numbers) -> Any:
    """Card time lost to loading models; nothing when the placement is given."""
    return 0.0 if unknowns.started is None else numbers.start_cost @ unknowns.started


def total(unknowns: Unknowns, numbers: Numbers) -> Any:
    """Everything, in requests in the system."""
    return (
        base_latency(unknowns, numbers)
        + congestion_delay(unknowns, numbers)
        + rent_and_idle_power(unknowns, numbers)
        + busy_power(unknowns, numbers)
        + turned_away(unknowns, numbers)
        + switching(unknowns, numbers)
    )
