"""Every policy by its name. Adding one is one file and one line here."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from router.domain.errors import ConfigError, UnknownNameError
from router.domain.protocols import Policy
from router.domain.slo import slo_from_json
from router.policies.context import PolicyContext
from router.policies.least_kv import LeastKv
from router.policies.least_request import LeastRequest
from router.policies.lmetric import LMetric
from router.policies.lmetric_normalized import LMetricNormalized
from router.policies.marginal_delay import MarginalDelay
from router.policies.motley import Motley
from router.policies.peers.aibrix_least_latency import AibrixLeastLatency
from router.policies.peers.aibrix_prefix_cache import AibrixPrefixCache
from router.policies.peers.aibrix_slo_least_load import AibrixSloLeastLoad
from router.policies.peers.dynamo_cost import DynamoCost
from router.policies.peers.goodserve_just_enough import GoodserveJustEnough
from router.policies.peers.llm_d_default import LlmDDefault
from router.policies.peers.melange_static_split import MelangeStaticSplit
from router.policies.peers.nginx_least_conn import NginxLeastConn
from router.policies.peers.polyserve_packing import PolyservePacking
from router.policies.peers.production_stack_loadaware import ProductionStackLoadaware
from router.policies.peers.production_stack_prefixaware import ProductionStackPrefixaware
from router.policies.peers.sglang_cache_aware import SglangCacheAware
from router.policies.peers.smg_least_load import SmgLeastLoad
from router.policies.peers.vllm_router_kv_aware import VllmRouterKvAware
from router.policies.peers.weighted_random import WeightedRandom
from router.policies.power_of_two import PowerOfTwo
from router.policies.random_choice import RandomChoice
from router.policies.round_robin import RoundRobin
from router.policies.trial import with_trial
from router.policies.weighted_least_request import WeightedLeastRequest

PolicyFactory = Callable[[PolicyContext], Policy]


def _llm_d_predicted_latency(context: PolicyContext) -> Policy:
    from router.policies.peers.llm_d_predicted_latency import (  # noqa: PLC0415 - numpy: 0.2 s
        LlmDPredictedLatency,
    )

    return LlmDPredictedLatency(context)


POLICIES: Mapping[str, PolicyFactory] = {
    "random": RandomChoice,
    "round-robin": RoundRobin,
    "least-request": LeastRequest,
    "power-of-two": PowerOfTwo,
    "weighted-least-request": WeightedLeastRequest,
    "least-kv": LeastKv,
    "lmetric": LMetric,
    "lmetric-normalized": LMetricNormalized,
    "marginal-delay": MarginalDelay,
    "motley": Motley,
    # What other routers do, to compare with.
    "weighted-random": WeightedRandom,
    "nginx-least-conn": NginxLeastConn,
    "sglang-cache-aware": SglangCacheAware,
    "smg-least-load": SmgLeastLoad,
    "vllm-router-kv-aware": VllmRouterKvAware,
    "production-stack-prefixaware": ProductionStackPrefixaware,
    "production-stack-loadaware": ProductionStackLoadaware,
    "llm-d-default": LlmDDefault,
    "llm-d-predicted-latency": _llm_d_predicted_latency,
    "dynamo-cost": DynamoCost,
    "aibrix-prefix-cache": AibrixPrefixCache,
    "aibrix-least-latency": AibrixLeastLatency,
    "aibrix-slo-least-load": AibrixSloLeastLoad,
    "goodserve-just-enough": GoodserveJustEnough,
    "polyserve-packing": PolyservePacking,
    "melange-static-split": MelangeStaticSplit,
}


BLIND_TO_SPEED = frozenset(
    {
        *("round-robin", "random", "least-request", "power-of-two", "least-kv", "lmetric"),
        *("aibrix-least-latency", "aibrix-prefix-cache", "dynamo-cost", "llm-d-default"),
        *("production-stack-loadaware", "production-stack-prefixaware", "sglang-cache-aware"),
        *("smg-least-load", "vllm-router-kv-aware"),
    }
)
"""Policies that never look at a backend's cost: nothing learned of speeds can change what they do,
so a simulation need not learn any."""


def polls_every_s(name: str, otherwise_s: float) -> float:
    """How often the router that a policy is taken from reads its engines' metrics, in seconds.

    Args:
        name: of the policy.
        otherwise_s: what holds for all policies that have no interval of their own.
    """
    own_s: float = getattr(POLICIES.get(name), "scrape_interval_s", otherwise_s)
    return own_s


def make_policy(name: str, context: PolicyContext) -> Policy:
    """Build a policy by name.

    Raises:
        UnknownNameError: no such policy.
        ConfigError: a parameter that the policy does not take, or that is no number.
    """
    try:
        factory = POLICIES[name]
    except KeyError:
        raise UnknownNameError("policy", name, POLICIES) from None
    policy = factory(context)
    unused = context.unused()
    if unused:
        raise ConfigError(
            f"policy {name!r} has no parameter {', '.join(map(repr, sorted(unused)))}; "
            f"it takes: {', '.join(sorted(context.asked)) or 'none'}"
        )
    return policy


def from_recipe(recipe: Mapping[str, Any]) -> Policy:
    """Build a policy from what a decision log holds of it.

    Args:
        recipe: ``name``, ``params``, ``seed``, ``slos`` (fields by class), and what stands beside
            it (see ``trial.with_trial``).

    Raises:
        ConfigError: as ``make_policy``.
    """
    return with_trial(_one, recipe)


def _one(recipe: Mapping[str, Any]) -> Policy:
    slos = {name: slo_from_json(slo) for name, slo in recipe["slos"].items()}
    context = PolicyContext(random.Random(recipe["seed"]), recipe["params"], slos)
    return make_policy(recipe["name"], context)
