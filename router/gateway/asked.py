"""What a client asks, in the dispatcher's words: model, class, targets, length, prefix."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Container, Mapping

from router.dispatcher import Dispatcher
from router.domain.request import Request
from router.domain.slo import DEFAULT_CLASS
from router.gateway.access.gate import Gate
from router.gateway.access.grant import Grant
from router.gateway.kv_transfer import shareable
from router.gateway.outbound import Outbound
from router.gateway.prefix import BLOCK_BYTES, prefix_hashes
from router.gateway.problems import Problem
from router.gateway.prompt_size import PromptSizer
from router.gateway.settings import EngineSettings
from router.gateway.tally import Usage
from router.gateway.terms import (
    EXPLAIN,
    FALLBACK,
    class_of,
    session_of,
    targets_of,
    tenant_of,
    terms_in,
    wants,
)
from router.gateway.wire import BadRequestError, Call, RoutingFields, token_limit


class Asked(Outbound):
    """Makes requests of calls.

    Args:
        dispatcher: decides.
        settings: see ``EngineSettings``.
        clock: seconds, monotonic; the only clock of the gateway.
        gate: knows what callers may do.
        taken: ids of requests that are not over.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        settings: EngineSettings,
        clock: Callable[[], float],
        gate: Gate,
        taken: Container[str],
    ) -> None:
        super().__init__(settings, gate)
        self.dispatcher = dispatcher
        self.now = clock
        self.sizer = PromptSizer()
        self._taken = taken
        self._explain_next_s = -math.inf

    def request_of(self, call: Call, fields: RoutingFields, size_bytes: int) -> Request:
        """The request as the dispatcher sees it.

        Args:
            call: as it came.
            fields: what its body says.
            size_bytes: of the body, images counted as what they cost.

        Raises:
            BadRequestError: a service class that does not exist, or targets that make no sense.
        """
        settings = self._settings
        headers = terms_in(call.named)
        model = fields.model or ""
        model = settings.aliases.get(model, model)
        model = settings.adapters.get(model, model)
        grant = call.caller.grant if call.caller is not None else None
        slo_class = (grant.default_class if grant is not None else "") or DEFAULT_CLASS
        if headers or fields.slo_class is not None or fields.service_tier is not None:
            slo_class = class_of(headers, fields.slo_class, fields.service_tier, slo_class)
        slo = settings.slos.get(slo_class)
        if slo is None:
            known = ", ".join(sorted(settings.slos))
            message = f"There is no service class {slo_class!r}. Classes here: {known}."
            raise BadRequestError(Problem(400, message, code="unknown_slo_class"))
        pairs = self.dispatcher.pairing is not None
        hashes: tuple[int, ...] = ()
        if call.generates and len(call.body) >= BLOCK_BYTES:
            hashes = prefix_hashes(fields.prompt_text())
        now, request_id = self.now(), call.request_id
        holder = grant.holder if grant is not None else ""
        return Request(
            request_id=_unique(request_id) if request_id in self._taken else request_id,
            model=model,
            arrival_s=now,
            prompt_tokens=self.sizer.estimate(model, size_bytes),
            max_tokens=token_limit(fields) if call.generates else 1,
            slo_class=slo_class,
            tenant=holder or tenant_of(headers) if headers else holder,
            session=session_of(headers) if headers else "",
            prefix_hashes=hashes,
            prefix_block_tokens=self.sizer.tokens_in(model, BLOCK_BYTES) if hashes else 0,
            slo=targets_of(headers, slo.of_model(model)) if headers else None,
            fallbacks=self._fallbacks(model, headers, grant) if settings.fallbacks else (),
            explain=(headers or now >= self._explain_next_s) and self._explains(headers, now),
            whole=pairs and not shareable(call.path, call.body),
        )

    def _fallbacks(
        self, model: str, headers: Mapping[bytes, bytes], grant: Grant | None
    ) -> tuple[str, ...]:
        """Who may answer instead: if the client allows it, those that its key may ask for."""
        others = self._settings.fallbacks.get(model, ())
        if not others or not wants(headers, FALLBACK):
            return ()
        allowed = grant.models if grant is not None else None
        return others if allowed is None else tuple(m for m in others if m in allowed)

    def _explains(self, headers: Mapping[bytes, bytes], now: float) -> bool:
        """Whether to account for the decision: the client asked, or it is time for a sample."""
        if now >= self._explain_next_s:
            every_s = self._settings.explain_every_s
            self._explain_next_s = math.inf if every_s is None else now + every_s
            return every_s is not None or wants(headers, EXPLAIN)
        return EXPLAIN in headers and wants(headers, EXPLAIN)

    def meant_by(self, asked: str) -> str:
        """The model or adapter that a name stands for."""
        return self._settings.aliases.get(asked, asked)

    def serves(self, asked: str) -> bool:
        """Whether a model of this name, an alias or an adapter can be asked for now."""
        model = self.meant_by(asked)
        return self._settings.adapters.get(model, model) in self.dispatcher.state.models

    def is_adapter(self, asked: str) -> bool:
        """Whether this name, or the one that it is an alias of, is a LoRA adapter's."""
        return self.meant_by(asked) in self._settings.adapters

    def learn(self, model: str, size_bytes: int, usage: Usage) -> None:
        """An engine counted the tokens of a prompt; a size of 0 stands for "no guide"."""
        if usage.prompt is not None and size_bytes:
            self.sizer.learn(model, size_bytes, usage.prompt)


def _unique(request_id: str) -> str:
    """An id of its own for the books, as clients may repeat theirs."""
    return f"{request_id}~{uuid.uuid4().hex}"
