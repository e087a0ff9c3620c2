"""What a request's span tells: the decision, its reasons in figures, and how it came out.

Names follow OpenTelemetry's conventions for HTTP and generative AI where there are some, and
begin with ``motley.`` where there are none. Prompts and answers are never among them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome
from router.gateway.account import Account
from router.gateway.wire import Call
from telemetry.tracing import Tracing, Value

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Spans:
    """Begins a span with each call and ends it with its account.

    Args:
        tracing: makes spans.
        policy: name of the policy.
        epoch_s: seconds since the epoch at zero of the gateway's clock.
        spec_of: a backend by name; ``None`` if it has left.
    """

    def __init__(
        self,
        tracing: Tracing,
        policy: str,
        epoch_s: float,
        spec_of: Callable[[str], BackendSpec | None],
    ) -> None:
        self._tracing, self._policy, self._epoch_s = tracing, policy, epoch_s
        self._spec_of = spec_of

    def begin(self, call: Call) -> None:
        """The engine is to continue this trace, so its headers change."""
        name = f"POST {call.path.decode('latin-1')}"
        call.span, call.headers = self._tracing.begin(name, call.headers)
        call.passed = None

    def end(self, account: Account) -> None:
        """Tell what became of it."""
        span = cast("Span | None", account.call.span)
        if span is None:
            return
        outcome = account.outcome
        failed = account.reason or ("" if account.status < 500 else f"HTTP {account.status}")
        if outcome is not None and outcome.status == "failed":
            failed = failed or "the answer broke off"
        self._tracing.end(
            span,
            self._attributes(account),
            events={} if outcome is None else self._moments(outcome),
            failed=failed,
            ended_unix_s=account.ended_s + self._epoch_s,
        )

    def _moments(self, outcome: Outcome) -> dict[str, float]:
        moments = {"dispatched": outcome.dispatched_s + self._epoch_s}
        if outcome.seen_first_s is not None:
            moments["first token"] = outcome.seen_first_s + self._epoch_s
        return moments

    def _attributes(self, account: Account) -> dict[str, Value]:
        call, request = account.call, account.request
        facts: dict[str, Value] = {
            "http.request.method": "POST",
            "url.path": call.path.decode("latin-1"),
            "http.response.status_code": account.status,
            "motley.request_id": call.request_id,
            "motley.policy": self._policy,
            "motley.tried": list(account.tried),
        }
        if account.reason:
            facts["motley.rejected"] = account.reason
        if account.finish_reason:
            facts["gen_ai.response.finish_reasons"] = [account.finish_reason]
        if request is not None:
            facts |= {
                "gen_ai.request.model": request.model,
                "motley.slo_class": request.slo_class,
                "motley.prompt_tokens_estimated": request.prompt_tokens,
            }
        if account.tried:
            facts |= self._backend(account.tried[-1])
        if account.outcome is not None:
            facts |= _figures(account.outcome)
        return facts

    def _backend(self, name: str) -> dict[str, Value]:
        spec = self._spec_of(name)
        facts: dict[str, Value] = {"motley.backend": name}
        if spec is not None:
            facts |= {"motley.gpu": spec.gpu, "motley.engine": spec.engine}
        return facts


def _figures(outcome: Outcome) -> dict[str, Value]:
    figures: dict[str, float | None] = {
        "gen_ai.usage.input_tokens": outcome.question_tokens,
        "gen_ai.usage.output_tokens": outcome.answer_tokens,
        "motley.cached_tokens": outcome.cached_tokens,
        "motley.carried_tokens": outcome.carried_tokens or None,
        "motley.queue_wait_s": outcome.dispatched_s - outcome.arrival_s,
        "motley.ttft_s": outcome.ttft_s,
        "motley.tpot_s": outcome.tpot_s,
        "motley.predicted_ttft_s": outcome.predicted_ttft_s,
        "motley.predicted_tpot_s": outcome.predicted_tpot_s,
        "motley.predicted_output_tokens": outcome.predicted_output_tokens,
        "motley.prefilling_at_dispatch": outcome.prefilling_at_dispatch,
        "motley.decoding_at_dispatch": outcome.decoding_at_dispatch,
    }
    facts: dict[str, Value] = {k: v for k, v in figures.items() if v is not None}
    return facts | {"motley.outcome": outcome.status}
