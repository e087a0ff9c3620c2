"""Records a run: a few hundred calls of every kind on a logging dispatcher, without a clock."""

from __future__ import annotations

import random
from typing import Any

from router.config.build import build_dispatcher
from router.config.load import load_config
from router.config.schema import BackendEntry
from router.dispatcher import Dispatcher
from router.domain.decision import Assign
from router.domain.fleet import BackendSpec
from router.domain.request import Request
from router.domain.state import EngineSignals, LinearCost, RemoteLoad
from router.policies.registry import from_recipe

MODEL = "llama-3.1-8b"
SLO = {"name": "interactive", "ttft_s": 1.0, "tpot_s": 0.1, "e2e_s": None}
FLEET: list[dict[str, Any]] = [
    {"gpu": "a100-80", "count": 2, "engine": "sglang", "model": MODEL},
    {"gpu": "v100-32", "model": MODEL, "zone": "old"},
    {"gpu": "t4", "count": 2, "tensor_parallel": 2, "model": MODEL, "labels": {"rack": "7"}},
]
HALVES: list[dict[str, Any]] = [
    *FLEET,
    {"gpu": "l40s", "name": "first", "model": MODEL, "role": "prefill"},
    {"gpu": "a100-80", "name": "then", "model": MODEL, "role": "decode"},
]
OTHER = {"name": "least-request", "params": {}, "seed": 2, "slos": {"interactive": SLO}}
BEFORE = {"ttft_s": 0.5, "counted_e2e_s": 8.0, "ttft_moment": 0.1, "e2e_moment": 0.2}
"""What the policy knew before a restart."""
JOINING = BackendEntry(gpu="l4", model=MODEL, max_model_len=8_192)


def wrong_by_name(spec: BackendSpec) -> LinearCost:
    """A belief that no catalogue holds, so that replay has to take it from the log."""
    return LinearCost(0.01 + 0.001 * len(spec.name), 1e-4, 2e-4, 1e-7)


class Recording:
    """Drives a dispatcher at random and keeps its log.

    Args:
        policy: name of the policy.
        calls: how many requests to send.
        send_first: whether books are opened after the request was sent, as the gateway does.
        settings: further sections of the configuration.
    """

    def __init__(
        self, policy: str, calls: int = 120, *, send_first: bool = False, **settings: Any
    ) -> None:
        self.log: list[bytes] = []
        self._send_first = send_first
        self._halves = "disaggregation" in settings
        config = load_config(
            {
                "backends": HALVES if self._halves else FLEET,
                "policy": {"name": policy, "seed": 5},
                "reliability": {"queue_size": 20, "queue_timeout_s": 0.4},
                **settings,
            }
        )
        self._dispatcher: Dispatcher = build_dispatcher(
            config, belief=wrong_by_name, log=self.log.append
        )
        self._pace = random.Random(11)
        self._flying: list[str] = []
        self._queued: list[str] = []
        self._now = 0.0
        self._dispatcher.recall(BEFORE, 0.0)
        for n in range(calls):
            self._now += self._pace.expovariate(25.0)
            self._arrive(n)
            self._something_happens(n)
            self._poll()

    def _arrive(self, n: int) -> None:
        pace = self._pace
        request = Request(
            f"r{n}",
            "unheard-of" if n % 40 == 7 else MODEL,
            self._now - pace.choice([0.0, 0.01]),
            pace.randrange(1, 3_000),
            pace.choice([None, None, 10, 400]),
            pace.choice(["interactive", "bulk"]),
            f"tenant-{n % 3}",
            f"chat-{n % 9}",
            (n % 9, 100 + n % 9, 1_000 + n),
            256,
        )
        decision = self._dispatcher.dispatch(request, self._now, booked=not self._send_first)
        self._dispatcher.book()
        self._follow(request.request_id, decision)

    def _follow(self, name: str, decision: object) -> None:
        if isinstance(decision, Assign):
            for recalled in decision.recalled:
                self._flying.remove(recalled)
                self._queued.append(recalled)
            self._flying.append(name)
        elif type(decision).__name__ == "Wait":
            self._queued.append(name)

    def _poll(self) -> None:
        for request, decision in self._dispatcher.poll(self._now):
            self._queued.remove(request.request_id)
            self._follow(request.request_id, decision)

    def _something_happens(self, n: int) -> None:
        self._fleet_changes(n)
        if n % 5 == 0:
            usage = self._pace.random()
            signals = EngineSignals(self._now, running=n % 7, waiting=n % 3, kv_usage=usage)
            self._dispatcher.scrape("a100-80-1", signals, self._now)
        while len(self._flying) > 12 or (self._flying and self._pace.random() < 0.4):
            self._end(self._flying.pop(self._pace.randrange(len(self._flying))), n)
        if self._queued and n % 10 == 9:
            self._dispatcher.cancel(self._queued.pop(), self._now)

    def _fleet_changes(self, n: int) -> None:
        dispatcher, now = self._dispatcher, self._now
        match n:
            case 20:
                dispatcher.correct("t4-0", prefill=1.5, decode=0.7, now=now)
                dispatcher.set_prices({f"t4x2/vllm/{MODEL}": 0.25}, now)
            case 50:
                dispatcher.add_backend(self._joining("l4-0"), now)
            case 55 | 60:
                dispatcher.drain("t4-1", now)
                dispatcher.restarted("t4-0", now)
                dispatcher.cached("t4-1", now, stored=(n % 9,), evicted=(3,), block_tokens=256)
            case 30 | 45 | 90:
                load = RemoteLoad(n % 4, 1, n, 0.5, n % 4 - 1, 10.0 * n, float(n))
                loads = {"a100-80-1": load, "gone": load} if n < 90 else {}
                dispatcher.share(loads, now, prefixes=[("t4-0", (n, n + 1), 256), ("gone", (), 0)])
            case 57:
                dispatcher.resume("t4-1", now)
            case 115:
                dispatcher.use_policy(from_recipe(OTHER), OTHER, now)
            case 70:  # another card, under the name of the one that left
                dispatcher.remove_backend("a100-80-0", now)
                dispatcher.add_backend(self._joining("a100-80-0"), now)
            case 80 | 110:  # nobody is well: requests wait, and some wait too long
                for backend in dispatcher.state.backends:
                    dispatcher.set_health(backend.spec.name, healthy=n == 110, now=now)

    def _end(self, name: str, n: int) -> None:
        dispatcher, now = self._dispatcher, self._now
        self._race(name, n)
        if self._halves and n % 2:
            dispatcher.prefilled(name, now)
        way = self._pace.randrange(8)
        if way == 0:
            half = self._halves and n % 4 == 0
            decision = dispatcher.redispatch(name, now, backpressure=n % 2 == 0, prefill=half)
            self._follow(name, decision)
            return
        if way == 1:
            dispatcher.presume_first_token(name, now)
        if way > 1:
            dispatcher.first_token(name, now)
        match way:
            case 2 if n % 2:  # another goes on with it
                decision = dispatcher.redispatch(name, now, output_tokens=7)
                self._follow(name, decision)
            case 2:
                half = self._halves and n % 4 == 2
                dispatcher.fail(name, now, output_tokens=3, prefill=half)
            case 3:
                dispatcher.refuse(name, now)
            case 4:
                dispatcher.cancel(name, now, output_tokens=2)
            case _:
                dispatcher.complete(
                    name, now, output_tokens=n, prompt_tokens=n + 1, cached_tokens=None
                )

    def _race(self, name: str, n: int) -> None:
        """Some are late: where hedging is on, a second backend may try too."""
        if n % 3:
            return
        dispatcher, now = self._dispatcher, self._now
        hedged = dispatcher.hedge(name, now + 30.0)
        if hedged is not None and n % 2:
            dispatcher.win(name, hedged.backend.name, now)
        elif hedged is not None:
            dispatcher.withdraw(name, hedged.backend.name, now, backpressure=n % 4 == 0)

    @staticmethod
    def _joining(name: str) -> BackendSpec:
        return BackendSpec(name=name, **JOINING.model_dump(exclude={"count", "url", "name"}))
