"""Which live engine, found and measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.live.client import EngineClient
from simulator.live.facts import identify, require_idle, signals_of
from simulator.live.fit import CostFit, fit_cost
from simulator.live.probe import Probe, ProbeOptions, ProbeResult, Progress
from simulator.live.setup import EngineSetup, Named, set_up


@dataclass(frozen=True, slots=True)
class Target:
    """Which engine.

    Attributes:
        named: what only the user can tell of it.
        model: which of its models; the first when empty.
        force: measure it although it is busy.
    """

    named: Named
    model: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """An engine, measured.

    Attributes:
        setup: what it told of itself, completed.
        probe: what was observed.
        fit: what follows.
        disturbed: whether others used the engine at the end of the probe.
    """

    setup: EngineSetup
    probe: ProbeResult
    fit: CostFit
    disturbed: bool


async def find(client: EngineClient, target: Target) -> EngineSetup:
    """Identify the engine and make sure that nobody else uses it.

    Raises:
        ConfigError, BusyEngineError: as ``identify``, ``set_up`` and ``require_idle``.
    """
    setup = set_up(await identify(client, target.model), target.named, client.url)
    if not target.force:
        await require_idle(client)
    return setup


async def measure(
    client: EngineClient, target: Target, options: ProbeOptions, progress: Progress
) -> Measured:
    """Probe the engine and fit its iteration.

    Raises:
        MotleyError: the engine cannot be reached, is busy, or does not answer.
    """
    setup = await find(client, target)
    probe = await Probe(client, setup, options).run(progress)
    return Measured(setup, probe, fitted(probe, options.seed), await is_busy(client))


def fitted(probe: ProbeResult, seed: int) -> CostFit:
    """The iteration that a probe shows."""
    return fit_cost(probe.observations, np.random.default_rng([seed, 0xF17]))


async def is_busy(client: EngineClient) -> bool:
    """Whether requests of others are inside; those of the probe are over."""
    signals = await signals_of(client)
    return bool((signals.running or 0) + (signals.waiting or 0))
