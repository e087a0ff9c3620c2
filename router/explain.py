"""Writes the account of a decision, and keeps the last few hundred.

Only requests with ``explain`` set are accounted for: everybody else pays for one look at a flag.
The account is written after the policy has chosen and before anything is sent, so it shows the
state that the policy saw. A policy that implements ``Explains`` tells its own scores; for any other
the predictions of ``router.perf.estimate`` are told, without a score.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from router.domain.decision import Assign, Decision, Reject
from router.domain.explanation import Candidate, Explains, Explanation, Score
from router.domain.outcome import Outcome
from router.domain.request import Request
from router.domain.state import BackendView
from router.fleet_state.backend import BackendState
from router.perf.estimate import prefill_backlog_s, tpot_s, ttft_s
from router.policies.trial import decider

KEPT = 512
_NAMED = 3


class Explainer:
    """Keeps the accounts of the last ``kept`` explained requests, newest last."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._accounts: OrderedDict[str, Explanation] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def get(self, request_id: str) -> Explanation | None:
        """The account of a request; ``None`` if there is none or it is too long ago."""
        return self._accounts.get(request_id)

    def recent(self) -> list[Explanation]:
        """All of them, oldest first."""
        return list(self._accounts.values())

    def note(  # noqa: PLR0917
        self,
        request: Request,
        decision: Decision,
        policy: object,
        everyone: Iterable[BackendState],
        options: Sequence[BackendView],
        barred: Mapping[str, str],
        queued: int,
        now: float,
    ) -> Explanation:
        """Write the account of one decision, before anything is sent.

        Args:
            request: with its forecast.
            decision: what was decided.
            policy: who chose.
            everyone: all backends, of any model.
            options: those that the policy was offered.
            barred: why others were not offered, where that is known.
            queued: requests waiting in the router.
            now: the time.
        """
        scores: Mapping[str, Score] = {}
        policy = decider(policy, request)
        if isinstance(policy, Explains) and options:
            scores = policy.explain(request, options, now)
        chosen = decision.backend.name if isinstance(decision, Assign) else ""
        offered = {view.spec.name for view in options}
        candidates = []
        for backend in everyone:
            name = backend.spec.name
            if backend.spec.model != request.model and name != chosen:
                continue
            out = "" if name in offered else barred.get(name) or _unusable(backend)
            score = scores.get(name, _NO_SCORE)
            candidates.append(_candidate(backend, request, score, out, now))
        _judge(candidates, chosen, decision)
        account = Explanation(
            request.request_id,
            request.model,
            request.slo_class,
            request.tenant,
            request.prompt_tokens,
            type(policy).__name__,
            now,
            now - request.arrival_s,
            request.forecast.mean_tokens,
            request.forecast.p90_tokens,
            type(decision).__name__.lower(),
            chosen,
            "" if isinstance(decision, Assign) else decision.reason,
            queued,
            candidates,
        )
        self._accounts.pop(request.request_id, None)
        self._accounts[request.request_id] = account
        if len(self._accounts) > self._kept:
            self._accounts.popitem(last=False)
        return account

    def ended(self, outcome: Outcome) -> None:
        """Put what really came beside what was predicted."""
        account = self._accounts.get(outcome.request_id)
        if account is not None:
            account.actual = {
                "status": outcome.status,
                "backend": outcome.backend,
                "ttft_s": outcome.ttft_s,
                "tpot_s": outcome.tpot_s,
                "e2e_s": outcome.e2e_s,
                "output_tokens": outcome.answer_tokens,
                "cached_tokens": outcome.cached_tokens,
                "carried_tokens": outcome.carried_tokens,
            }


_NO_SCORE = Score(None)


def as_json(account: Explanation) -> dict[str, Any]:
    """The stable document of ``/debug/decisions`` and of the decision log.

    Its keys are the attributes of ``Explanation`` and ``Candidate``; new ones may be added, none
    will change its meaning. Numbers that are not finite read ``null``.
    """
    return {key: _plain(value) for key, value in asdict(account).items()}


def compact(account: Explanation) -> str:
    """The account in one line of ASCII, for a response header.

    ``decision;waited_s=..;queued=..`` and then, best first, ``, backend;ttft_s=..;tpot_s=..``
    with ``score``, ``in_flight``, ``cached`` and ``price`` where they say something, and ``lost``
    with the reason. Values with spaces are quoted (structured fields, RFC 8941).
    """
    parts = [
        f"{account.decision};waited_s={account.waited_s:.3f};queued={account.queued}"
        f";candidates={len(account.candidates)}"
    ]
    if account.pair is not None:
        parts[0] += (
            f";prefill={account.pair['prefill']};transfer_s={account.pair['transfer_s']:.4f}"
        )
    for one in account.candidates[:_NAMED]:
        text = f"{one.backend};ttft_s={one.predicted_ttft_s:.3f};tpot_s={one.predicted_tpot_s:.4f}"
        if one.score is not None and math.isfinite(one.score):
            text += f";score={one.score:.4g}"
        text += f";in_flight={one.in_flight}"
        text += f";cached={one.cached_tokens}" if one.cached_tokens else ""
        text += f";price={one.price:.3g}" if one.price else ""
        text += f';lost="{one.lost_because}"' if one.lost_because else ""
        parts.append(text)
    return ", ".join(parts)


def _candidate(
    backend: BackendState, request: Request, score: Score, out: str, now: float
) -> Candidate:
    prompt, output = request.prompt_tokens, max(request.forecast.mean_tokens, 1.0)
    ttft = ttft_s(backend, prompt, now, cached_tokens=score.cached_tokens)
    tpot = tpot_s(backend, prompt, output)
    return Candidate(
        backend.spec.name,
        backend.spec.gpu,
        ttft,
        tpot,
        ttft + output * tpot,
        backend.in_flight,
        backend.prefilling,
        prefill_backlog_s(backend, now),
        backend.context_tokens / max(backend.kv_capacity_tokens, 1),
        score.cached_tokens,
        backend.price,
        score.score,
        dict(score.terms),
        out or score.note,
    )


def _judge(candidates: list[Candidate], chosen: str, decision: Decision) -> None:
    """Order them, best first, and say of each why it lost."""

    def order(one: Candidate) -> tuple[bool, bool, float]:
        rank = one.predicted_e2e_s if one.score is None else one.score
        return one.backend != chosen, bool(one.lost_because), rank

    candidates.sort(key=order)
    best = candidates[0].score if candidates and candidates[0].backend == chosen else None
    for one in candidates:
        if one.backend == chosen:
            one.lost_because = ""
        elif not one.lost_because:
            one.lost_because = _why_lost(one, best, decision)


def _why_lost(one: Candidate, best: float | None, decision: Decision) -> str:
    if isinstance(decision, Reject):
        return "the request was rejected"
    if not isinstance(decision, Assign):
        return "the policy waits"
    if one.score is None or best is None:
        return "not chosen by a policy that gives no scores"
    if one.score == best:
        return "a tie, broken at random"
    if one.score < best:
        return "not looked at: a better one of a sample, or of its group, was taken"
    return f"score worse by {one.score - best:.3g}"


def _unusable(backend: BackendState) -> str:
    if backend.draining:
        return "is draining"
    if not backend.healthy:
        return "failed its health checks"
    if not backend.breaker.allows():
        return f"circuit breaker is {backend.breaker.state}"
    return "cannot take this request: tried before, or its context is too short"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
