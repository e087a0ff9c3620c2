"""Policies as they are run: as they are, without their parts, and told everything."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.policies.bounds import ALONE, CLAIRVOYANT, ORACLE
from benchmarks.policies.scenarios import SLO_MIX, Scenario
from simulator.sweep.cell import code_digest

STRONG = (
    *("least-request", "nginx-least-conn", "lmetric", "aibrix-slo-least-load"),
    *("marginal-delay", "motley"),
)
"""Who had the least of either P99 in some scenario when all were run, and ours."""
MOTLEY_FIFO = "motley, first in first out"
BEHIND_CLASSES = ("least-request", "nginx-least-conn")
"""Peers that are also run behind Motley's queue of classes."""

ABLATIONS: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "motley": ({}, {}),
    "minus externality": ({"externality": 0.0}, {}),
    "minus TTFT term": ({"ttft_weight": 0.0}, {}),
    "minus late binding": ({"backlog_s": 1e9}, {}),
    "minus waiting for one": ({"hold_margin": 1e12}, {}),
    "minus prefix credit": ({"prefix_weight": 0.0}, {}),
    "minus tail-awareness": ({"tail_weight": 0.0, "overshoot_weight": 0.0}, {}),
    "minus overshoot alone": ({"overshoot_weight": 0.0}, {}),
    "minus feedback": ({}, {"feedback": False}),
    "plus plan prices": ({"price_weight": 1.0}, {"plan": True}),
    "oracle lengths": ({}, {"length_predictor": "oracle"}),
    "oracle (bound)": ({}, {"oracle": True}),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """A policy as it is run.

    Attributes:
        name: in the tables.
        policy, params: what is run.
        options: of the replay, where they differ.
        classes: whether the router's queue honours service classes.
    """

    name: str
    policy: str
    params: tuple[tuple[str, float], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    classes: bool = False

    def key(self, scenario: Scenario, seed: int) -> str:
        if self.name == ALONE:  # the same at any load
            scenario = replace(scenario, load=0.0)
        facts = f"{self.policy}{self.params}{self.options}{self.classes}{scenario}{seed}"
        return sha256(f"{facts}{code_digest()}{_own_digest()}".encode()).hexdigest()[:20]


def variants(options: argparse.Namespace, workload: str) -> tuple[Variant, ...]:
    """What is run on a scenario."""
    mixed = workload == SLO_MIX
    if options.ablation:
        return tuple(
            Variant(name, "motley", tuple(params.items()), tuple(changed.items()), classes=mixed)
            for name, (params, changed) in ABLATIONS.items()
            if name in options.variants
        )
    if options.headroom:
        return (
            Variant("least-request", "least-request"),
            Variant("motley", "motley", classes=mixed),
            Variant(CLAIRVOYANT, "motley", options=ORACLE, classes=mixed),
            Variant(ALONE, ALONE),
        )
    found = [Variant(name, name, classes=mixed and name == "motley") for name in options.policies]
    if mixed and not options.held_out:
        found.append(Variant(MOTLEY_FIFO, "motley"))
        found += [Variant(f"{name}, by class", name, classes=True) for name in BEHIND_CLASSES]
    return tuple(found)


@cache
def _own_digest() -> str:
    """Of the scenarios: another mix or window is another result."""
    here = Path(__file__).parent
    names = ("scenarios.py", "held_out.py", "slo_mix.py", "bounds.py")
    return sha256(b"".join((here / name).read_bytes() for name in names)).hexdigest()
