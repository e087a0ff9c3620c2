"""The decision log: every call on the Dispatcher, with its ``now``.

A log is JSON lines. The first line holds the configuration that built the dispatcher; each
further line is one call, its arguments and what it answered. ``router.log_replay`` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from router.class_dispatcher import ClassDispatcher
from router.decision_line import Line, asked_of, facts_of, side_of, told
from router.dispatcher import Dispatcher
from router.domain.decision import Assign, Decision, Reject
from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome
from router.domain.protocols import Policy
from router.domain.request import Request
from router.domain.state import EngineSignals, RemoteLoad
from router.explain import as_json
from router.fleet_state.capability import Capability

Sink = Callable[[bytes], object]

_encode = msgspec.json.Encoder().encode


class LoggingDispatcher(Dispatcher):
    """A Dispatcher that writes every call to ``sink``, one JSON line at a time."""

    sink: Sink

    def log_to(self, sink: Sink, header: Mapping[str, Any]) -> LoggingDispatcher:
        """Begin a log; must be called before the first request. Returns ``self``."""
        self.sink = sink
        sink(_encode({"call": "open", **header}) + b"\n")
        return self

    def dispatch(self, request: Request, now: float, *, booked: bool = True) -> Decision:  # noqa: D102
        asked = request.model  # a fallback may answer in its place
        decision = super().dispatch(request, now, booked=booked)
        answer = self._with_account(request.request_id, told(decision), request.explain)
        self._write("dispatch", now, {"request": asked_of(request, asked)}, answer)
        return decision

    def redispatch(  # noqa: D102
        self,
        request_id: str,
        now: float,
        *,
        backpressure: bool = False,
        output_tokens: int = 0,
        prefill: bool = False,
    ) -> Decision:
        decision = super().redispatch(
            request_id,
            now,
            backpressure=backpressure,
            output_tokens=output_tokens,
            prefill=prefill,
        )
        args: Line = {"request_id": request_id, "backpressure": backpressure, **side_of(prefill)}
        if output_tokens:  # left out where there are none: older logs have no such argument
            args["output_tokens"] = output_tokens
        self._write("redispatch", now, args, told(decision))
        return decision

    def first_token(self, request_id: str, now: float) -> None:  # noqa: D102
        super().first_token(request_id, now)
        self._write("first_token", now, {"request_id": request_id})

    def prefilled(self, request_id: str, now: float) -> None:  # noqa: D102
        super().prefilled(request_id, now)
        self._write("prefilled", now, {"request_id": request_id})

    def presume_first_token(self, request_id: str, now: float) -> None:  # noqa: D102
        super().presume_first_token(request_id, now)
        self._write("presume_first_token", now, {"request_id": request_id})

    def hedge(self, request_id: str, now: float) -> Assign | None:  # noqa: D102
        decision = super().hedge(request_id, now)
        answer = {"keep": True} if decision is None else told(decision)
        self._write("hedge", now, {"request_id": request_id}, answer)
        return decision

    def win(self, request_id: str, backend: str, now: float) -> None:  # noqa: D102
        super().win(request_id, backend, now)
        self._write("win", now, {"request_id": request_id, "backend": backend})

    def withdraw(  # noqa: D102
        self, request_id: str, backend: str, now: float, *, backpressure: bool = False
    ) -> None:
        super().withdraw(request_id, backend, now, backpressure=backpressure)
        args = {"request_id": request_id, "backend": backend, "backpressure": backpressure}
        self._write("withdraw", now, args)

    def complete(  # noqa: D102
        self,
        request_id: str,
        now: float,
        *,
        output_tokens: int,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
    ) -> Outcome:
        counts = {
            "output_tokens": output_tokens,
            "prompt_tokens": prompt_tokens,
            "cached_tokens": cached_tokens,
        }
        outcome = super().complete(
            request_id,
            now,
            output_tokens=output_tokens,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
        )
        self._write("complete", now, {"request_id": request_id, **counts})
        return outcome

    def fail(  # noqa: D102
        self,
        request_id: str,
        now: float,
        *,
        backpressure: bool = False,
        output_tokens: int = 0,
        prefill: bool = False,
    ) -> Outcome:
        outcome = super().fail(
            request_id,
            now,
            backpressure=backpressure,
            output_tokens=output_tokens,
            prefill=prefill,
        )
        args: Line = {
            "request_id": request_id,
            "backpressure": backpressure,
            "output_tokens": output_tokens,
            **side_of(prefill),
        }
        self._write("fail", now, args)
        return outcome

    def refuse(self, request_id: str, now: float) -> Outcome:  # noqa: D102
        outcome = super().refuse(request_id, now)
        self._write("refuse", now, {"request_id": request_id})
        return outcome

    def cancel(self, request_id: str, now: float, *, output_tokens: int = 0) -> None:  # noqa: D102
        super().cancel(request_id, now, output_tokens=output_tokens)
        self._write("cancel", now, {"request_id": request_id, "output_tokens": output_tokens})

    def poll(self, now: float) -> list[tuple[Request, Assign | Reject]]:  # noqa: D102
        decided = super().poll(now)
        answer = [
            [r.request_id, self._with_account(r.request_id, told(decision), r.explain)]
            for r, decision in decided
        ]
        self._write("poll", now, {}, answer)
        return decided

    def scrape(self, backend: str, signals: EngineSignals, now: float) -> None:  # noqa: D102
        super().scrape(backend, signals, now)
        self._write("scrape", now, {"backend": backend, "signals": asdict(signals)})

    def correct(self, backend: str, *, prefill: float, decode: float, now: float) -> None:  # noqa: D102
        super().correct(backend, prefill=prefill, decode=decode, now=now)
        self._write("correct", now, {"backend": backend, "prefill": prefill, "decode": decode})

    def recall(self, known: Mapping[str, float], now: float) -> None:  # noqa: D102
        super().recall(known, now)
        self._write("recall", now, {"known": dict(known)})

    def set_prices(self, prices: Mapping[str, float], now: float) -> None:  # noqa: D102
        super().set_prices(prices, now)
        self._write("set_prices", now, {"prices": dict(prices)})

    def set_health(self, backend: str, *, healthy: bool, now: float) -> None:  # noqa: D102
        super().set_health(backend, healthy=healthy, now=now)
        self._write("set_health", now, {"backend": backend, "healthy": healthy})

    def restarted(self, backend: str, now: float) -> None:  # noqa: D102
        super().restarted(backend, now)
        self._write("restarted", now, {"backend": backend})

    def cached(  # noqa: D102
        self,
        backend: str,
        now: float,
        *,
        stored: Sequence[int] = (),
        evicted: Sequence[int] = (),
        block_tokens: int = 0,
    ) -> None:
        super().cached(backend, now, stored=stored, evicted=evicted, block_tokens=block_tokens)
        args = {"backend": backend, "stored": stored, "evicted": evicted}
        self._write("cached", now, {**args, "block_tokens": block_tokens})

    def drain(self, backend: str, now: float) -> None:  # noqa: D102
        super().drain(backend, now)
        self._write("drain", now, {"backend": backend})

    def share(  # noqa: D102
        self,
        loads: Mapping[str, RemoteLoad],
        now: float,
        *,
        prefixes: Sequence[tuple[str, tuple[int, ...], int]] = (),
    ) -> None:
        super().share(loads, now, prefixes=prefixes)
        by_name = {name: asdict(load) for name, load in loads.items()}
        self._write("share", now, {"loads": by_name, "prefixes": prefixes})

    def resume(self, backend: str, now: float) -> None:  # noqa: D102
        super().resume(backend, now)
        self._write("resume", now, {"backend": backend})

    def use_policy(  # noqa: D102
        self, policy: Policy, recipe: Mapping[str, Any], now: float
    ) -> None:
        super().use_policy(policy, recipe, now)
        self._write("use_policy", now, {"recipe": dict(recipe)})

    def add_backend(  # noqa: D102
        self, spec: BackendSpec, now: float, *, capability: Capability | None = None
    ) -> None:
        known = capability or self.state.capability_of(spec)
        super().add_backend(spec, now, capability=known)
        facts = {"spec": facts_of(spec), "capability": facts_of(known)}
        self._write("add_backend", now, facts)

    def remove_backend(self, backend: str, now: float) -> None:  # noqa: D102
        super().remove_backend(backend, now)
        self._write("remove_backend", now, {"backend": backend})

    def _with_account(self, request_id: str, answer: Line, explained: bool) -> Line:
        account = self.explainer.get(request_id) if explained else None
        return answer if account is None else {**answer, "explanation": as_json(account)}

    def _write(self, call: str, now: float, args: Line, answer: object = None) -> None:
        line: Line = {"call": call, "now": now, "args": args}
        if answer is not None:
            line["answer"] = answer
        self.sink(_encode(line) + b"\n")


class LoggingClassDispatcher(LoggingDispatcher, ClassDispatcher):
    """The same where classes are scheduled."""
