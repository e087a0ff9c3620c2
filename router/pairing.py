"""Prefill here, decode there: when two backends are predicted to serve a request better than one.

Prompts want compute and answers want memory bandwidth, and an engine that does only one of the two
never stalls one for the other. For a request of p prompt and o expected output tokens, with the
prefill on a and the decode on b::

    transfer = latency + p * KV bytes per token / bandwidth of the link between a and b
    TTFT     = TTFT on a  +  transfer  +  one iteration on b
    cost     = TTFT + o * TPOT on b  +  delay inflicted on a by the prompt, on b by the answer

against the cost of serving it whole where the policy wants it, by the same formula (own delay plus
inflicted delay, as in ``policies.marginal_delay``). A pair must be ``gain`` better than that, for
two engines hold what one would, and predictions err; and its TTFT must be at most ``ttft_slack``
times the other. Where no backend serves whole requests, the best pair is taken once it is open.

A pair is open while its prefill side has less than ``backlog_s`` of prompts before it and both
sides have KV and a place for the request; else the request waits in the router, as it would for
any saturated backend. Both sides must run the same engine, version and weight format, or they
could not read each other's KV. Sources: Splitwise (ISCA 2024), DistServe (OSDI 2024), Mooncake
(FAST 2025); what they call placement is the operator's here (``role``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from router.domain.fleet import BackendSpec, Role
from router.domain.request import Request
from router.fleet_state.backend import BackendState
from router.perf.estimate import decode_iteration_s, kv_wait_s, prefill_backlog_s, tpot_s, ttft_s
from router.policies.marginal_delay import inflicted_s

_KV_LIMIT = 0.9
Kin = tuple[str, str, str, str]
"""Who can read whose KV, and where they stand: engine, version, weight format, zone."""


@dataclass(frozen=True, slots=True)
class PairRules:
    """When and over what requests are split.

    Attributes:
        link_gb_per_s: bandwidth between two backends of one zone, in 10^9 bytes a second.
        cross_zone_gb_per_s: between zones; ``None``: pairs stay inside a zone.
        latency_s: before the first byte of KV moves.
        gain: share by which a pair must be better than serving the request whole.
        min_prompt_tokens: shorter prompts are always served whole where somebody does that.
        backlog_s: prompts before it on the prefill side, in seconds, at most.
        ttft_slack: multiple of the TTFT of serving it whole that the pair's may reach: a transfer
            always costs some.
    """

    link_gb_per_s: float = 12.5
    cross_zone_gb_per_s: float | None = None
    latency_s: float = 0.005
    gain: float = 0.1
    min_prompt_tokens: int = 256
    backlog_s: float = 0.3
    ttft_slack: float = 1.5


@dataclass(frozen=True, slots=True)
class Pair:
    """Two backends for one request, and what is predicted of them.

    Attributes:
        prefill, decode: the backends.
        transfer_s, ttft_s, tpot_s: predictions, from now on.
        cost_s: own delay plus inflicted delay; compared with serving it whole.
        whole_cost_s: the same for the backend that the policy wants; infinity if there is none.
    """

    prefill: BackendState
    decode: BackendState
    transfer_s: float
    ttft_s: float
    tpot_s: float
    cost_s: float
    whole_cost_s: float = math.inf

    def account(self) -> dict[str, Any]:
        """For the explanation of a decision; see ``domain.explanation.Explanation``."""
        return {
            "prefill": self.prefill.spec.name,
            "decode": self.decode.spec.name,
            "transfer_s": self.transfer_s,
            "ttft_s": self.ttft_s,
            "tpot_s": self.tpot_s,
            "cost_s": self.cost_s,
            "whole_cost_s": self.whole_cost_s,
        }


class Pairing:
    """Finds pairs and counts what came of them.

    Args:
        rules: see ``PairRules``.

    Attributes:
        paired: requests sent to a pair, by (prefill, decode).
        broken: attempts that a side failed, by (side, backend).
        moved_bytes: KV sent over links, as predicted.
    """

    def __init__(self, rules: PairRules) -> None:
        self.rules = rules
        self.paired: Counter[tuple[str, str]] = Counter()
        self.broken: Counter[tuple[str, str]] = Counter()
        self.moved_bytes = 0.0

    def better(
        self,
        request: Request,
        whole: BackendState | None,
        sides: Sequence[BackendState],
        now: float,
        *,
        cached_tokens: int = 0,
    ) -> Pair | None:
        """The pair that should serve a request, if any should.

        Args:
            request: with its forecast.
            whole: where it would be served whole; ``None`` if nobody can do that now.
            sides: everybody of its model that may be used, whatever the role.
            now: the time.
            cached_tokens: of its prompt, what ``whole`` is believed to have cached.
        """
        limit_s = math.inf
        if whole is not None:
            if request.prompt_tokens < self.rules.min_prompt_tokens:
                return None
            limit_s = self.whole_s(request, whole, now, cached_tokens)
        pair = self._best(request, sides, now)
        if pair is None or pair.cost_s * (1.0 + self.rules.gain) >= limit_s:
            return None
        if whole is not None:
            first_s = ttft_s(whole, request.prompt_tokens, now, cached_tokens=cached_tokens)
            if pair.ttft_s > self.rules.ttft_slack * first_s:
                return None
        return replace(pair, whole_cost_s=limit_s)

    def possible(self, sides: Sequence[BackendState]) -> bool:
        """Whether any two of these could share a request if they were idle."""
        decodes = {_kin(b.spec)[:3] for b in sides if _may(b.spec, "decode")}
        return any(_may(b.spec, "prefill") and _kin(b.spec)[:3] in decodes for b in sides)

    def whole_s(
        self, request: Request, view: BackendState, now: float, cached_tokens: int = 0
    ) -> float:
        """Own and inflicted delay of serving a request whole."""
        prompt, output = request.prompt_tokens, max(request.forecast.mean_tokens, 1.0)
        own_s = ttft_s(view, prompt, now, cached_tokens=cached_tokens)
        own_s += output * tpot_s(view, prompt, output)
        saved_s = view.cost.prefill_s * cached_tokens * view.decoding
        return own_s + inflicted_s(view, prompt, output) - saved_s

    def transfer_s(
        self, prefill: BackendSpec, decode: BackendSpec, prompt_tokens: int, bytes_per_token: float
    ) -> float:
        """Seconds until a prompt's KV has moved; infinity where no link may be used."""
        rules = self.rules
        rate = rules.link_gb_per_s if prefill.zone == decode.zone else rules.cross_zone_gb_per_s
        if rate is None:
            return math.inf
        return rules.latency_s + prompt_tokens * bytes_per_token / (rate * 1e9)

    def sent(self, pair: Pair, prompt_tokens: int) -> None:
        """Requests go there."""
        self.paired[pair.prefill.spec.name, pair.decode.spec.name] += 1
        self.moved_bytes += prompt_tokens * pair.prefill.kv_bytes_per_token

    # -- inside ------------------------------------------------------------------------------

    def _best(self, request: Request, sides: Sequence[BackendState], now: float) -> Pair | None:
        """The two costs are independent, so the two best of each side and kin hold the best pair.

        (Two, for the best prefill and the best decode may be one and the same backend.)
        """
        prefills = _two_best(
            (b, self._prefill_cost_s(b, request, now)) for b in sides if _may(b.spec, "prefill")
        )
        decodes = _two_best(
            (b, _decode_cost_s(b, request)) for b in sides if _may(b.spec, "decode")
        )
        best: Pair | None = None
        for mine, firsts in prefills.items():
            for theirs, seconds in decodes.items():
                if mine[:3] != theirs[:3]:
                    continue
                for prefill, first_s in firsts:
                    for decode, second_s in seconds:
                        pair = self._pair(request, prefill, decode, first_s + second_s, now)
                        if pair and (best is None or pair.cost_s < best.cost_s):
                            best = pair
        return best

    def _prefill_cost_s(self, view: BackendState, request: Request, now: float) -> float:
        prompt = request.prompt_tokens
        room = _KV_LIMIT * view.kv_capacity_tokens - view.context_tokens
        if view.in_flight >= view.max_num_seqs or view.max_context_tokens <= prompt:
            return math.inf
        if view.in_flight and room < prompt:
            return math.inf
        if view.prefilling and prefill_backlog_s(view, now) > self.rules.backlog_s:
            return math.inf
        return ttft_s(view, prompt, now) + view.cost.prefill_s * prompt * view.decoding

    def _pair(
        self,
        request: Request,
        prefill: BackendState,
        decode: BackendState,
        cost_s: float,
        now: float,
    ) -> Pair | None:
        if prefill is decode:
            return None
        prompt, output = request.prompt_tokens, max(request.forecast.mean_tokens, 1.0)
        moves_s = self.transfer_s(prefill.spec, decode.spec, prompt, prefill.kv_bytes_per_token)
        if moves_s == math.inf:
            return None
        tau_s = tpot_s(decode, prompt, output)
        first_s = ttft_s(prefill, prompt, now) + moves_s + tau_s
        return Pair(prefill, decode, moves_s, first_s, tau_s, cost_s + moves_s)


def _may(spec: BackendSpec, role: Role) -> bool:
    """Whether a backend can serve this half; SGLang is started for one half or for none."""
    return spec.role == role or (spec.role == "both" and spec.engine == "vllm")


def _kin(spec: BackendSpec) -> Kin:
    return spec.engine, spec.engine_version, spec.quantization, spec.zone


def _decode_cost_s(view: BackendState, request: Request) -> float:
    prompt, output = request.prompt_tokens, max(request.forecast.mean_tokens, 1.0)
    wanted = prompt + (request.max_tokens or 1)
    room = _KV_LIMIT * view.kv_capacity_tokens - view.context_tokens
    if view.in_flight >= view.max_num_seqs or view.max_context_tokens < wanted:
        return math.inf
    if view.in_flight and (room < prompt or kv_wait_s(view, prompt) > 0.0):
        return math.inf
    own_s = decode_iteration_s(view, 1, prompt) + output * tpot_s(view, prompt, output)
    # Its prompt is computed elsewhere: only its answer slows down those who are here.
    return own_s + inflicted_s(view, prompt, output) - view.cost.prefill_s * prompt * view.decoding


def _two_best(
    scored: Iterable[tuple[BackendState, float]],
) -> dict[Kin, list[tuple[BackendState, float]]]:
    """The two cheapest open ones of each kin; of equals the first listed."""
    kins: dict[Kin, list[tuple[BackendState, float]]] = {}
    for view, cost_s in scored:
        if cost_s == math.inf:
            continue
        best = kins.setdefault(_kin(view.spec), [])
        best.append((view, cost_s))
        best.sort(key=lambda item: item[1])
        del best[2:]
    return kins
