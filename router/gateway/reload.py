"""The whole YAML file again, while the gateway serves.

A file that is not valid changes nothing: the old configuration stays and the log says why. A
valid one is applied as a difference: what joined, changed and left the fleet; aliases, classes,
policy, timeouts, keys. What only a restart can change is named. Nothing in flight is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from router.config.diff import Change, changes
from router.config.load import MotleyConfig
from router.domain.errors import BadInputError
from router.gateway.access.build import build_ring
from router.gateway.discovery.roster import CONFIG, Difference, Roster
from router.gateway.engine_settings import engine_settings
from router.gateway.lull import Rest
from router.gateway.runtime import Runtime
from router.gateway.upstream import parse_address
from router.gateway.watch import FileWatch
from router.policies.registry import from_recipe
from solver.settings import limits_of

log = logging.getLogger("motley.reload")

LOOK_S = 1.0

Loader = Callable[[], MotleyConfig]


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did.

    Attributes:
        ok: whether the file was valid and is in force.
        error: why it is not.
        fleet: what joined, changed and left.
        applied: settings in force now.
        needs_restart: settings that differ from those the gateway was started with, and are not.
    """

    ok: bool
    error: str = ""
    fleet: Difference = field(default_factory=Difference)
    applied: tuple[Change, ...] = ()
    needs_restart: tuple[Change, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For ``POST /reload``."""
        return {
            "ok": self.ok,
            "error": self.error or None,
            "fleet": asdict(self.fleet),
            "applied": [str(change) for change in self.applied],
            "needs_restart": [str(change) for change in self.needs_restart],
        }


class Reloader:
    """Reads the configuration again when told to, and when its file changes.

    Args:
        runtime: to change.
        roster: the fleet.
        load: reads the file again, with the command line's flags on top.
        counted: called with "ok" or "refused" after each reload.

    Attributes:
        last_ok: whether the file was valid when it was read last.
        pending: settings of the file that wait for a restart.
    """

    def __init__(
        self, runtime: Runtime, roster: Roster, load: Loader, counted: Callable[[str], None]
    ) -> None:
        self._runtime = runtime
        self._roster = roster
        self._load = load
        self._counted = counted
        self.last_ok = True
        self.pending: tuple[Change, ...] = ()
        self._started = runtime.config
        path = Path(runtime.config.source)
        self._file = FileWatch(path) if path.is_file() else None
        keys = runtime.config.access.keys_file
        self._keys = FileWatch(Path(keys)) if keys else None
        for watch in (self._file, self._keys):
            if watch is not None:
                watch.changed()

    def reload(self, why: str) -> Reloaded:
        """Read, check, apply; never raises for a bad file."""
        try:
            config = self._load()
            result = self._apply(config)
        except BadInputError as error:
            result = Reloaded(ok=False, error=f"{error}")
        self.last_ok = result.ok
        self._counted("ok" if result.ok else "refused")
        self._tell(why, result)
        return result

    async def keep_watching(self, rest: Rest) -> None:
        """Reload when the file changes; read the keys again when theirs does."""
        while True:
            await rest(LOOK_S)
            self.look()

    def look(self) -> None:
        """One look at the files."""
        if self._file is not None and self._file.changed():
            self.reload("the file changed")
        if self._keys is not None and self._keys.changed():
            self._renew_keys()

    # -- inside ------------------------------------------------------------------------------

    def _apply(self, config: MotleyConfig) -> Reloaded:
        runtime = self._runtime
        old = runtime.config
        # Everything that can be refused comes before anything that takes effect.
        ring = build_ring(config)
        policy = from_recipe(recipe(config))
        settings = engine_settings(config)
        for spec in config.fleet.backends:
            parse_address(spec.name, spec.url)
        if runtime.planned is not None:
            limits_of(config)
        found = changes(old, config)
        self._roster.hardware = config.hardware
        self._roster.drain_s = config.reliability.drain_timeout_s
        difference = self._roster.put_specs(CONFIG, config.fleet.backends)
        runtime.gate.replace(ring, config.access.prices)
        runtime.engine.reconfigure(settings)
        if any(change.path.startswith(("policy", "slos")) for change in found):
            dispatcher, now = runtime.engine.dispatcher, runtime.engine.now()
            dispatcher.use_policy(policy, recipe(config), now)
        if runtime.planned is not None and any(
            change.path.startswith(("planner", "slos")) for change in found
        ):
            runtime.planned.reconfigure(config)
        runtime.config = config
        runtime.engine.poke()
        self.pending = tuple(one for one in changes(self._started, config) if not one.hot)
        return Reloaded(
            ok=True,
            fleet=difference,
            applied=tuple(change for change in found if change.hot),
            needs_restart=self.pending,
        )

    def _renew_keys(self) -> None:
        config = self._runtime.config
        try:
            ring = build_ring(config)
        except BadInputError as error:
            log.error("the keys stay as they were: %s", error)
            return
        self._runtime.gate.replace(ring, config.access.prices)
        self._runtime.engine.reconfigure(engine_settings(config))
        log.info("the keys were read again")

    def _tell(self, why: str, result: Reloaded) -> None:
        if not result.ok:
            log.error("reload (%s): the old configuration stays: %s", why, result.error)
            return
        log.info("reload (%s): fleet %s", why, result.fleet or "unchanged")
        for change in result.applied:
            log.info("reload: %s", change)
        for change in result.needs_restart:
            log.warning("reload: %s needs a restart", change)


def without_canary(runtime: Runtime) -> None:
    """Put the policy in force again, without its canary.

    The file still names the canary; it comes back when the file's ``policy`` section changes.
    """
    config = runtime.config
    kept = replace(config, policy=config.policy.model_copy(update={"canary": None}))
    said = recipe(kept)
    dispatcher = runtime.engine.dispatcher
    dispatcher.use_policy(from_recipe(said), said, runtime.engine.now())


def recipe(config: MotleyConfig) -> dict[str, Any]:
    """What the decision log keeps of a policy."""
    slos = {name: asdict(slo) for name, slo in config.slos.items()}
    return {**config.policy.model_dump(), "slos": slos}
