"""What a dispatcher is told beside the requests: telemetry, prices, health, who comes and goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.domain.fleet import BackendSpec
from router.domain.protocols import (
    CacheNews,
    DispatchListener,
    LossListener,
    Observer,
    Policy,
    PrefixHints,
    Recalls,
)
from router.domain.state import EngineSignals, RemoteLoad
from router.fleet_state.capability import Capability
from router.fleet_state.fleet import FleetState


class Informed:
    """The fleet and the policy of a dispatcher, and how both learn.

    Args:
        state: the fleet.
        policy: chooses among the usable backends.
        observers: told of every finished attempt; they learn, they do not choose.
    """

    def __init__(
        self, state: FleetState, policy: Policy, observers: Sequence[Observer] = ()
    ) -> None:
        self.state = state
        self._policy = policy
        # A policy that learns is told too, last, so that it sees what the others learned.
        learning = (policy,) if isinstance(policy, Observer) else ()
        self._observers = (*observers, *learning)
        self._listener = policy if isinstance(policy, DispatchListener) else None

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    def scrape(self, backend: str, signals: EngineSignals, now: float) -> None:  # noqa: ARG002
        """An engine's own metrics arrived."""
        self.state.scrape(backend, signals)

    def correct(self, backend: str, *, prefill: float, decode: float, now: float) -> None:  # noqa: ARG002
        """New learned multipliers on a backend's prior cost (1.0 = as the catalogue says)."""
        self.state.correct(backend, prefill, decode)

    def known(self) -> dict[str, float]:
        """What the policy has learned that stays true over a restart."""
        return self._policy.known() if isinstance(self._policy, Recalls) else {}

    def recall(self, known: Mapping[str, float], now: float) -> None:  # noqa: ARG002
        """What the policy knew before a restart; nothing happens where it keeps nothing."""
        if isinstance(self._policy, Recalls):
            self._policy.recall(known)

    def set_prices(self, prices: Mapping[str, float], now: float) -> None:  # noqa: ARG002
        """New shadow prices by group, in seconds of delay per engine-second."""
        self.state.set_prices(prices)

    def set_health(self, backend: str, *, healthy: bool, now: float) -> None:
        """An active health check spoke."""
        was = self.state.get(backend).healthy
        self.state.set_health(backend, healthy)
        if healthy and not was:
            self.state.recovered(self.state.get(backend), now)
        if not healthy:
            self._forget(backend)

    def restarted(self, backend: str, now: float) -> None:  # noqa: ARG002
        """An engine started anew: its prefix cache is cold, whatever was sent there before."""
        self._forget(backend)

    def cached(
        self,
        backend: str,
        now: float,  # noqa: ARG002
        *,
        stored: Sequence[int] = (),
        evicted: Sequence[int] = (),
        block_tokens: int = 0,
    ) -> None:
        """An engine told what entered or left its prefix cache.

        Args:
            backend: its name; nothing happens for one that has left.
            now: the time.
            stored, evicted: prefix hashes, as requests carry them.
            block_tokens: tokens that one hash stands for.
        """
        if backend in self.state and isinstance(self._policy, CacheNews):
            self._policy.cached(self.state.get(backend), stored, evicted, block_tokens)

    def drain(self, backend: str, now: float) -> None:  # noqa: ARG002
        """Send nothing new to this backend."""
        self.state.drain(backend)

    def share(
        self,
        loads: Mapping[str, RemoteLoad],
        now: float,
        *,
        prefixes: Sequence[tuple[str, tuple[int, ...], int]] = (),
    ) -> None:
        """What other replicas of this router have under way, and what they sent where.

        Args:
            loads: by backend, everything of all others; who is not named has nothing.
            now: the time.
            prefixes: backend, prefix hashes and tokens a block of prompts they sent lately.
        """
        self.state.share(loads, now)
        policy = self._policy
        if prefixes and isinstance(policy, PrefixHints):
            for name, hashes, block_tokens in prefixes:
                if name in self.state:
                    policy.hint(self.state.get(name), hashes, block_tokens)

    def resume(self, backend: str, now: float) -> None:  # noqa: ARG002
        """Send to this backend again: it was drained, and stays after all."""
        self.state.resume(backend)

    def use_policy(
        self,
        policy: Policy,
        recipe: Mapping[str, Any],  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> None:
        """Decide with another policy from now on; what is queued is decided by it.

        Args:
            policy: a fresh one.
            recipe: what ``policies.registry.from_recipe`` would make it of, for the log.
            now: the time.
        """
        others = tuple(one for one in self._observers if one is not self._policy)
        learning = (policy,) if isinstance(policy, Observer) else ()
        self._policy, self._observers = policy, (*others, *learning)
        self._listener = policy if isinstance(policy, DispatchListener) else None

    def add_backend(
        self,
        spec: BackendSpec,
        now: float,
        *,
        capability: Capability | None = None,
    ) -> None:
        """A backend joins; ``capability`` is what it can do, if that is not to be looked up."""
        self.state.recovered(self.state.add(spec, capability), now)

    def remove_backend(self, backend: str, now: float) -> None:  # noqa: ARG002
        """A backend leaves; what is in flight there runs on until it is reported over."""
        self.state.remove(backend)
        self._forget(backend)

    def _forget(self, backend: str) -> None:
        if isinstance(self._policy, LossListener):
            self._policy.lost(backend)
