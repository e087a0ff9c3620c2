"""How delay on one engine grows with its load: a convex curve through two operating points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solver.service import Service

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Congestion:
    """Mean requests in the system of one replica, beyond their unhindered service.

    ``extra(rho) = K*phi*rho^2 / (1 - phi*rho)  +  r^sqrt(2(c+1)) / (1 - r)``

    The first term is slowdown inside the batch; the second is the queue for a KV slot
    (M/M/c by Sakasegawa 1977), with ``r`` the share of the ``c`` slots that are taken. It matters
    where KV memory binds before compute, as on 24 GB cards. Both are convex and rise from 0.

    Attributes:
        concurrency: K, requests in the system per unit of utilization at no load.
        batch: c, requests running at saturation; at least ``concurrency``.
    """

    concurrency: float
    batch: float

    @property
    def phi(self) -> float:
        """Share of the work that does not shrink by batching, 0 to 1."""
        return max(0.0, 1.0 - self.concurrency / self.batch)

    @property
    def _exponent(self) -> float:
        return float((2.0 * (self.batch + 1.0)) ** 0.5)

    def slots_taken(self, rho: float) -> float:
        """Share of the batch in use at a utilization: 0 at 0 and 1 at 1."""
        return self.concurrency * rho / (1.0 - self.phi * rho) / self.batch

    def extra(self, rho: float) -> float:
        """Requests in the system in excess of ``concurrency * rho``; rho below 1."""
        return float(self.extras(np.array([rho]))[0])

    def slope(self, rho: float) -> float:
        """Derivative of ``extra``: seconds of delay inflicted per engine-second of load."""
        return float(self.slopes(np.array([rho]))[0])

    def extras(self, rho: Floats) -> Floats:
        """``extra`` at many utilizations."""
        phi = self.phi
        taken = self.concurrency * rho / (1.0 - phi * rho) / self.batch
        slowdown = self.concurrency * phi * rho * rho / (1.0 - phi * rho)
        return np.asarray(slowdown + taken**self._exponent / (1.0 - taken))

    def slopes(self, rho: Floats) -> Floats:
        """``slope`` at many utilizations."""
        phi, exponent = self.phi, self._exponent
        free = 1.0 - phi * rho
        taken = self.concurrency * rho / free / self.batch
        taken_slope = self.concurrency / (self.batch * free * free)
        slowdown = self.concurrency * phi * rho * (2.0 - phi * rho) / (free * free)
        rising = exponent * taken ** (exponent - 1.0) / (1.0 - taken)
        return np.asarray(slowdown + (rising + taken**exponent / (1.0 - taken) ** 2) * taken_slope)

    def toll(self, rho: float) -> float:
        """The part of ``slope`` that a request cannot read from the state it meets.

        On arrival it meets ``N`` others and can see its own slowdown among them and theirs
        through it, ``K*phi*rho / (1 - phi*rho)`` each. Both leave later for it, and slow those
        who come next: that is the rest, and it falls on requests that are not there yet.
        """
        hidden = self.concurrency * (self.phi * rho / (1.0 - self.phi * rho)) ** 2
        return float(hidden)

    def tangents(self, points: Sequence[float]) -> tuple[Floats, Floats]:
        """Slopes and intercepts of the tangents at ``points``: lower bounds of ``extra``."""
        rho = np.asarray(points, dtype=float)
        slopes = self.slopes(rho)
        return slopes, self.extras(rho) - rho * slopes


def congestion(services: Sequence[tuple[float, Service]]) -> Congestion:
    """Congestion of an engine that serves a mix, given as (rate, service) pairs.

    With no rates at all the classes count alike.
    """
    weighted = [(rate, one) for rate, one in services if rate > 0] or [
        (1.0, one) for _, one in services
    ]
    load = sum(rate * one.engine_s for rate, one in weighted)
    concurrency = sum(rate * one.alone_s for rate, one in weighted) / load
    batch = sum(rate * one.engine_s * one.batch for rate, one in weighted) / load
    return Congestion(concurrency, max(batch, concurrency))
