"""What all exchanges share: the dispatcher, the clock, deadlines, the queue's wake-up call.

Knows no web server. One engine lives in one event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import ExitStack

from router.dispatcher import Decided, Dispatcher
from router.domain.decision import Assign, Decision
from router.domain.errors import PollError
from router.domain.request import Request
from router.gateway.access.gate import Gate
from router.gateway.account import Account
from router.gateway.asked import Asked
from router.gateway.exchange import Exchange
from router.gateway.limits import Limits
from router.gateway.lull import Lull
from router.gateway.presumed import Presumed
from router.gateway.problems import DEFECT, Problem
from router.gateway.seams import Client, Events
from router.gateway.settings import EngineSettings
from router.gateway.wire import Call
from router.perf.estimate import prefill_backlog_s

POLL_S = 0.05
"""Time alone frees capacity (a backlog is worked off), so waiting requests are looked at this
often even when nothing happens."""

SHORTEST_LOOK_S, LONGEST_LOOK_S = 0.005, 0.25
"""All requests under way are looked at this often to see whether one is late: an eighth of the
shortest limit, within these bounds. A timer for each would cost every request 3 us."""


class Engine(Asked):
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
        lull: for chores, which go on when an answer has ended.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        settings: EngineSettings,
        clock: Callable[[], float],
        events: Events,
        gate: Gate,
    ) -> None:
        live: dict[str, Exchange] = {}
        super().__init__(dispatcher, settings, clock, gate, live)
        self.events = events
        self.limits = settings.limits
        self.policy_name = settings.policy_name.encode()
        self.ended: Callable[[Account], None] | None = None
        self.load_told: Callable[[str, bytes, float], None] | None = None
        self.missed: Callable[[str, float], None] | None = None
        self.begin_span: Callable[[Call], None] | None = None
        self.sent: Callable[[Request, str], None] | None = None
        self.continuation = settings.continuation
        self.max_json_depth = settings.max_json_depth
        self.lull = Lull()
        self._awaited: dict[str, float] = {}
        self.presumed = Presumed(clock)
        self._live = live
        self._watch: asyncio.TimerHandle | None = None
        self._look_s = _look_every_s(settings.limits)
        self._poked: asyncio.Handle | None = None
        self._alarm: asyncio.TimerHandle | None = None

    # For the front ends

    def open(self, call: Call, client: Client, ready: Exchange | None = None) -> Exchange:
        """Begin one exchange; its answer goes to ``client``.

        Args:
            call: what is asked.
            client: whoever asks.
            ready: what ``prepare`` made of the two, if it was asked before.
        """
        if self.begin_span is not None:
            self.begin_span(call)
        exchange = ready or Exchange(self, call, client)
        exchange.begin()
        return exchange

    def prepare(self, call: Call, client: Client) -> Exchange:
        """An exchange that may be opened when the body is there."""
        return Exchange(self, call, client)

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
        super().reconfigure(settings)
        self.limits = settings.limits
        self.continuation = settings.continuation
        self.max_json_depth = settings.max_json_depth
        self._look_s = _look_every_s(settings.limits)
        self.policy_name = settings.policy_name.encode()

    def close(self) -> None:
        """Let go of timers and idle connections; exchanges under way are cancelled."""
        for exchange in list(self._live.values()):
            exchange.cut()
        super().close()
        self.presumed.close()
        self.lull.close()
        for handle in (self._poked, self._alarm, self._watch):
            if handle is not None:
                handle.cancel()
        self._poked = self._alarm = self._watch = None

    # For the exchanges

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

    def enter(self, call: Call, asked: str, request: Request) -> Problem | None:
        """Let the caller's request in, or say why not."""
        if call.caller is None:
            return None
        return self.gate.enter(call.caller, asked, self.meant_by(asked), request)

    def joined(self, exchange: Exchange, request_id: str) -> None:
        """An exchange has a request in the books."""
        self._live[request_id] = exchange
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(self._look_s, self._look)

    def left(self, request_id: str) -> None:
        """It is over."""
        self._live.pop(request_id, None)
        if not self._live:
            self.presumed.close()
        self.gate.left(request_id)
        self.lull.answered()

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
        with ExitStack() as then:  # whatever comes of one, the others hear of theirs
            then.callback(self._set_alarm)
            try:
                self._tell_each(self.dispatcher.poll(self.now()), then)
            except PollError as error:
                fallen = self._live.get(error.request.request_id)
                if fallen is not None:
                    then.callback(fallen.fell, DEFECT)
                self._tell_each(error.decided, then)
                raise

    def _tell_each(self, decided: list[Decided], then: ExitStack) -> None:
        for request, decision in reversed(decided):
            then.callback(self._tell, request, decision)

    def _tell(self, request: Request, decision: Decision) -> None:
        self.recall(decision)
        exchange = self._live.get(request.request_id)
        if exchange is not None:
            exchange.decided(decision)

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


def _look_every_s(limits: Limits) -> float:
    return min(max(limits.shortest_s / 8, SHORTEST_LOOK_S), LONGEST_LOOK_S)
