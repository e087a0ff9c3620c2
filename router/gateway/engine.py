"""What all exchanges share: the dispatcher, the connections, the clock, the queue's wake-up call.

Knows no web server. One engine lives in one event loop.
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import getrandbits

from router.dispatcher import Dispatcher
from router.domain.decision import Assign, Decision
from router.domain.fleet import BackendSpec
from router.domain.request import Request
from router.domain.slo import DEFAULT_CLASS, DEFAULT_SLOS, Slo
from router.gateway.access.gate import Gate
from router.gateway.access.grant import Grant
from router.gateway.account import Account
from router.gateway.continuation.rules import ContinuationRules
from router.gateway.exchange import Exchange
from router.gateway.identity import Identity
from router.gateway.kv_transfer import shareable
from router.gateway.limits import Limits
from router.gateway.multipart import is_form, renamed
from router.gateway.prefix import BLOCK_BYTES, prefix_hashes
from router.gateway.presumed import Presumed
from router.gateway.problems import Problem
from router.gateway.prompt_size import PromptSizer
from router.gateway.seams import Client, Events
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
from router.gateway.upstream import Address, Guard, UpstreamPool, parse_address
from router.gateway.wire import (
    HOP_BY_HOP,
    NO_LIMIT,
    BadRequestError,
    Call,
    RoutingFields,
    end_to_end,
    token_limit,
    with_priority_turned,
)
from router.perf.estimate import prefill_backlog_s

POLL_S = 0.05
"""Time alone frees capacity (a backlog is worked off), so waiting requests are looked at this
often even when nothing happens."""

PRIORITY_LABEL, LOW_FIRST = "priority_order", "low-first"
"""Label of an SGLang that was started with ``--schedule-low-priority-values-first``."""

SHORTEST_LOOK_S, LONGEST_LOOK_S = 0.005, 0.25
"""All requests under way are looked at this often to see whether one is late: an eighth of the
shortest limit, within these bounds. A timer for each would cost every request 3 us."""

_NOT_VERSION = ~(0xF << 76 | 0x3 << 62)
_VERSION_4 = 0x4 << 76 | 0x2 << 62
"""A random UUID by hand: the library's takes 6 us, this 1."""

_SANE_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")
_ASK_LOAD = b"endpoint-load-metrics-format: TEXT"
_OURS = frozenset(
    (
        *(b"host", b"content-length", b"expect", b"accept-encoding", b"x-request-id"),
        b"endpoint-load-metrics-format",
        *HOP_BY_HOP,
    )
)
_CREDENTIALS = frozenset((b"authorization", b"x-api-key"))


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine needs of the configuration.

    Attributes:
        limits: timeouts and retries.
        policy_name: told in ``x-motley-policy``.
        aliases: other names of models.
        adapters: LoRA adapters, and the model whose engines have them loaded.
        slos: targets by class: the classes a request may ask for.
        fallbacks: models that may answer in place of one, for requests that allow it.
        explain_every_s: how often a decision is explained that nobody asked about; ``None``:
            never.
        asks_load: whether vLLM is asked to send its load along with each answer (ORCA).
        identity: keys and certificates for the engines, if there are any.
        continuation: which streams are gone on with where a backend breaks off; ``None``: none.
        max_json_depth: how deep bodies may be nested.
    """

    limits: Limits
    policy_name: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    slos: Mapping[str, Slo] = field(default_factory=lambda: DEFAULT_SLOS)
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    explain_every_s: float | None = None
    asks_load: bool = False
    identity: Identity | None = None
    continuation: ContinuationRules | None = None
    max_json_depth: int = NO_LIMIT


class Engine:
    """Opens exchanges and keeps what they share.

    Args:
        dispatcher: decides.
        settings: see ``EngineSettings``.
        clock: seconds, monotonic; the only clock of the gateway.
        events: told what happens.
        gate: knows what callers may do; when it checks credentials, they go no further.

    Attributes:
        ended: given the account of every exchange, if anybody wants it.
        load_told: given (backend, header, now) where an engine's answer tells its load.
        missed: given (class, now) of every request that got no answer for our fault.
        begin_span: called with every call, where requests are traced.
        sent: told (request, backend) of every attempt, where replicas share.
        guards: by backend, for those that were registered over REST: where they may be.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        settings: EngineSettings,
        clock: Callable[[], float],
        events: Events,
        gate: Gate,
    ) -> None:
        self.dispatcher = dispatcher
        self.events = events
        self.limits = settings.limits
        self.policy_name = settings.policy_name.encode()
        self.sizer = PromptSizer()
        self.now = clock
        self.ended: Callable[[Account], None] | None = None
        self.load_told: Callable[[str, bytes, float], None] | None = None
        self.missed: Callable[[str, float], None] | None = None
        self.begin_span: Callable[[Call], None] | None = None
        self.gate = gate
        self.guards: dict[str, Guard] = {}
        self.sent: Callable[[Request, str], None] | None = None
        self._settings = settings
        self.continuation = settings.continuation
        self.max_json_depth = settings.max_json_depth
        self._awaited: dict[str, float] = {}
        self._drop = _OURS | (_CREDENTIALS if gate else frozenset())
        self._pools: dict[str, UpstreamPool] = {}
        self.presumed = Presumed(clock)
        self._live: dict[str, Exchange] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._look_s = _look_every_s(settings.limits)
        self._explain_next_s = -math.inf
        self._poked: asyncio.Handle | None = None
        self._alarm: asyncio.TimerHandle | None = None

    # For the front ends

    def open(self, call: Call, client: Client) -> Exchange:
        """Begin one exchange; its answer goes to ``client``."""
        if self.begin_span is not None:
            self.begin_span(call)
        exchange = Exchange(self, call, client)
        exchange.begin()
        return exchange

    @property
    def live(self) -> int:
        """Exchanges under way."""
        return len(self._live)

    def tell_sent(self, listener: Callable[[Request, str], None]) -> None:
        """Tell this one too of every attempt."""
        others = self.sent
        if others is None:
            self.sent = listener
            return

        def both(request: Request, backend: str) -> None:
            others(request, backend)
            listener(request, backend)

        self.sent = both

    def reconfigure(self, settings: EngineSettings) -> None:
        """Other settings from now on; attempts under way keep their timeouts."""
        self._settings = settings
        self.limits = settings.limits
        self.continuation = settings.continuation
        self.max_json_depth = settings.max_json_depth
        self._look_s = _look_every_s(settings.limits)
        self.policy_name = settings.policy_name.encode()
        self._drop = _OURS | (_CREDENTIALS if self.gate else frozenset())

    def close(self) -> None:
        """Let go of timers and idle connections; exchanges under way are cancelled."""
        for exchange in list(self._live.values()):
            exchange.cut()
        for pool in self._pools.values():
            pool.close()
        self.presumed.close()
        for handle in (self._poked, self._alarm, self._watch):
            if handle is not None:
                handle.cancel()
        self._poked = self._alarm = self._watch = None

    # For the exchanges

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
        default = (grant.default_class if grant is not None else "") or DEFAULT_CLASS
        slo_class = class_of(headers, fields.slo_class, fields.service_tier, default)
        slo = settings.slos.get(slo_class)
        if slo is None:
            known = ", ".join(sorted(settings.slos))
            message = f"There is no service class {slo_class!r}. Classes here: {known}."
            raise BadRequestError(Problem(400, message, code="unknown_slo_class"))
        pairs = self.dispatcher.pairing is not None
        hashes = prefix_hashes(fields.prompt_text()) if call.generates else ()
        now, request_id = self.now(), call.request_id
        return Request(
            request_id=self._unique(request_id) if request_id in self._live else request_id,
            model=model,
            arrival_s=now,
            prompt_tokens=self.sizer.estimate(model, size_bytes),
            max_tokens=token_limit(fields) if call.generates else 1,
            slo_class=slo_class,
            tenant=grant.holder if grant is not None and grant.holder else tenant_of(headers),
            session=session_of(headers),
            prefix_hashes=hashes,
            prefix_block_tokens=self.sizer.tokens_in(model, BLOCK_BYTES) if hashes else 0,
            slo=targets_of(headers, slo.of_model(model)),
            fallbacks=self._fallbacks(model, headers, grant) if settings.fallbacks else (),
            explain=self._explains(headers, now),
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

    def _unique(self, request_id: str) -> str:
        """An id of its own for the books, as clients may repeat theirs."""
        return f"{request_id}~{uuid.uuid4().hex}"

    def upstream_request(
        self, call: Call, body: bytes, asked: str, backend: BackendSpec, address: Address
    ) -> Sequence[bytes]:
        """Head and body for one backend: the client's own bytes, but for what is per hop.

        ``accept-encoding`` is held back, so that usage can be read in passing.
        """
        settings = self._settings
        model = settings.aliases.get(asked, asked)
        if model not in settings.adapters:
            model = backend.served_model or backend.model
        if asked != model:
            body = renamed(body, model, call.content_type)
        if backend.engine == "sglang" and _high_first(backend) and not is_form(call.content_type):
            body = with_priority_turned(body)
        target = address.prefix + call.path + (b"?" + call.query if call.query else b"")
        lines = [
            b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\nx-request-id: %b"
            % (target, address.authority, len(body), call.request_id.encode())
        ]
        drop = self._drop
        own = self.credentials(backend.name) if settings.identity is not None else b""
        if own:
            lines.append(own)
            drop |= _CREDENTIALS
        lines += [b"%b: %b" % pair for pair in end_to_end(call.headers, drop)]
        if settings.asks_load and backend.engine == "vllm":
            lines.append(_ASK_LOAD)
        lines.append(b"\r\n")
        return (b"\r\n".join(lines), body)

    def credentials(self, name: str) -> bytes:
        """The header line that shows a backend who we are; empty if it need not know."""
        identity = self._settings.identity
        return identity.authorization(name) if identity is not None else b""

    def tls(self, name: str) -> ssl.SSLContext | None:
        """Whom to trust as this backend, and what to show it; ``None`` for the system's trust."""
        identity = self._settings.identity
        return identity.tls(name) if identity is not None else None

    def keeps_credentials(self, name: str) -> bool:
        """Whether the client's own are held back from this backend."""
        return bool(self.gate) or bool(self.credentials(name))

    def pool(self, backend: BackendSpec) -> UpstreamPool:
        """Connections to a backend."""
        pool = self._pools.get(backend.name)
        if pool is None:
            address = parse_address(backend.name, backend.url)
            guard, tls = self.guards.get(backend.name), self.tls(backend.name)
            pool = UpstreamPool(address, guard, tls)
            self._pools[backend.name] = pool
        return pool

    def serves(self, asked: str) -> bool:
        """Whether a model of this name, an alias or an adapter can be asked for now."""
        model = self._settings.aliases.get(asked, asked)
        return self._settings.adapters.get(model, model) in self.dispatcher.state.models

    def is_adapter(self, asked: str) -> bool:
        """Whether this name, or the one that it is an alias of, is a LoRA adapter's."""
        return self._settings.aliases.get(asked, asked) in self._settings.adapters

    def await_model(self, model: str, until_s: float) -> None:
        """Its last backend left, and its source is likely to bring another one."""
        self._awaited[model] = until_s

    def awaits(self, model: str, now: float) -> bool:
        """Whether a model that nobody serves is likely to be served again soon."""
        if now < self._awaited.get(model, -math.inf):
            return True
        self._awaited.pop(model, None)
        return False

    def backlog_s(self, name: str, now: float) -> float:
        """Seconds until this backend should have prefilled all prompts that it has."""
        return prefill_backlog_s(self.dispatcher.state.get(name), now)

    def has(self, name: str) -> bool:
        """Whether the fleet has a backend of this name now."""
        return any(backend.spec.name == name for backend in self.dispatcher.state.backends)

    def forget(self, name: str) -> None:
        """A backend left the fleet: close its idle connections."""
        self.guards.pop(name, None)
        pool = self._pools.pop(name, None)
        if pool is not None:
            pool.close()

    def enter(self, call: Call, asked: str, request: Request) -> Problem | None:
        """Let the caller's request in, or say why not."""
        return self.gate.enter(call.caller, asked, request) if call.caller is not None else None

    def joined(self, exchange: Exchange, request_id: str) -> None:
        """An exchange has a request in the books."""
        self._live[request_id] = exchange
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(self._look_s, self._look)

    def left(self, request_id: str) -> None:
        """It is over."""
        self._live.pop(request_id, None)
        self.gate.left(request_id)

    def learn(self, model: str, size_bytes: int, usage: Usage) -> None:
        """An engine counted the tokens of a prompt; a size of 0 stands for "no guide"."""
        if usage.prompt is not None and size_bytes:
            self.sizer.learn(model, size_bytes, usage.prompt)

    # Deadlines

    def _look(self) -> None:
        """See whether anybody is late; one timer for all, and none while nobody is there."""
        self._watch = None
        now = self.now()
        for exchange in list(self._live.values()):
            exchange.look(now)
        if self._live:
            self._watch = asyncio.get_running_loop().call_later(self._look_s, self._look)

    # The queue

    def queued(self) -> None:
        """The dispatcher keeps a request waiting: look again before its patience ends."""
        self._set_alarm()

    def poke(self) -> None:
        """Something changed: decide the queued requests soon, once for all pokes of this turn."""
        # Somebody waits if and only if the alarm is set.
        if self._alarm is not None and self._poked is None:
            self._poked = asyncio.get_running_loop().call_soon(self._poll)

    def _poll(self) -> None:
        self._poked = None
        for request, decision in self.dispatcher.poll(self.now()):
            self.recall(decision)
            exchange = self._live.get(request.request_id)
            if exchange is not None:
                exchange.decided(decision)
        self._set_alarm()

    def recall(self, decision: Decision) -> None:
        """Break off the attempts that the dispatcher took back; their requests wait again."""
        if isinstance(decision, Assign) and decision.recalled:
            for request_id in decision.recalled:
                exchange = self._live.get(request_id)
                if exchange is not None:
                    exchange.recalled()
            self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due_s = self.dispatcher.next_poll_s()
        if due_s is not None:
            delay = min(max(0.001, due_s - self.now()), POLL_S)
            self._alarm = asyncio.get_running_loop().call_later(delay, self._poll)


def _high_first(backend: BackendSpec) -> bool:
    """Whether this engine serves the higher ``priority`` first."""
    return backend.engine == "sglang" and backend.labels.get(PRIORITY_LABEL) != LOW_FIRST


def _look_every_s(limits: Limits) -> float:
    return min(max(limits.shortest_s / 8, SHORTEST_LOOK_S), LONGEST_LOOK_S)


def request_id_of(offered: bytes | None) -> str:
    """The client's ``x-request-id`` if it is sane, else a new UUID (llama.cpp takes no other)."""
    if offered and _SANE_ID.fullmatch(offered):
        return offered.decode("ascii")
    digits = "%032x" % (getrandbits(128) & _NOT_VERSION | _VERSION_4)
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
