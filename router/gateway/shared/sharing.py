"""Exchange with the other replicas, ten times a second, and what that changes here.

* Their requests under way count as load of each backend, so that replicas do not all choose the
  same idle card; limits and budgets of keys count everybody's use.
* Prompts they sent are remembered as cached.
* One replica leads (``lead.py``): it alone scrapes and plans, the others take its signals and
  prices.
* Workers registered over REST are everybody's.

When the board cannot be reached the replica goes on alone: the others' load is forgotten after
``stale_after_s``, limits count what is known and what is used here, everybody leads, and
``motley_shared_state_up_ratio`` says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from router.config.shared import SharedSection
from router.domain.fleet import BackendSpec
from router.domain.request import Request
from router.fleet_state.sharing import added, own_loads
from router.gateway.access.ledger import Entry
from router.gateway.discovery.roster import REST, Roster
from router.gateway.engine import Engine
from router.gateway.shared import facts as about
from router.gateway.shared.board import Board, BoardError, Posting, View
from router.gateway.shared.facts import Facts, Prefix
from router.gateway.shared.lead import Lead
from router.gateway.upstream import Guard

log = logging.getLogger("motley.shared")

MOST_PREFIXES = 128


class Sharing:
    """One replica's side of the board.

    Args:
        board: shared with the others.
        settings: how often, how patient.
        engine: whose counts are told, and who is told the others'.
        roster: takes registered workers.
        guard: where those may be.
        failed: called at each error, for the metrics.

    Attributes:
        lead: whether this replica scrapes and plans.
        up: whether the board could be reached the last time.
        replicas: how many there are, this one included.
    """

    def __init__(
        self,
        board: Board,
        settings: SharedSection,
        engine: Engine,
        roster: Roster,
        *,
        guard: Guard,
        failed: Callable[[], None],
    ) -> None:
        self._board, self._settings = board, settings
        self._engine, self._roster, self._failed = engine, roster, failed
        self._guard = guard
        self.lead = Lead(board, settings.lease_s)
        self._joined: dict[str, bytes] = {}
        self._gone: set[str] = set()
        self._prefixes: deque[tuple[int, Prefix]] = deque(maxlen=MOST_PREFIXES)
        self._sent = 0
        self._heard: dict[str, int] = {}
        self._born = ""
        self._owed: dict[Entry, float] = {}
        self._last_ok_s = engine.now()
        self._scraped_s: dict[str, float] = {}
        self.up = True
        self.replicas = 1

    async def run(self) -> None:
        """Exchange for ever; leave politely."""
        try:
            while not _told_to_stop():
                await self.exchange()
                await asyncio.sleep(self._settings.interval_s)
        finally:
            await self._board.leave()

    async def exchange(self) -> None:
        """One exchange, and what follows from it."""
        gate = self._engine.gate
        spent = gate.ledger.drain()
        posting = Posting(
            about.encode(self._own()),
            spent,
            gate.entries(),
            dict(self._joined),
            sorted(self._gone),
        )
        try:
            await self.lead.bid(self._engine.now())
            view = await self._board.exchange(posting)
        except BoardError as error:
            self._alone(error)
            return
        self._joined = {n: w for n, w in self._joined.items() if posting.joined.get(n) != w}
        self._gone -= set(posting.gone)
        self._take(view)

    # -- told by others here -----------------------------------------------------------------

    def sent(self, request: Request, backend: str) -> None:
        """A request was sent: the others may want to know where its prefix is cached."""
        if request.prefix_hashes:
            self._sent += 1
            prefix = (backend, request.prefix_hashes, request.prefix_block_tokens)
            self._prefixes.append((self._sent, prefix))

    def joined(self, spec: BackendSpec) -> None:
        """A worker was registered here."""
        self._gone.discard(spec.name)
        self._joined[spec.name] = msgspec.json.encode(spec)

    def left(self, name: str) -> None:
        """A worker was removed here."""
        self._joined.pop(name, None)
        self._gone.add(name)

    # -- inside ------------------------------------------------------------------------------

    def _own(self) -> Facts:
        engine = self._engine
        state = engine.dispatcher.state
        facts = Facts(
            loads=own_loads(state),
            active=engine.gate.active(),
            prefixes=list(self._prefixes),
        )
        if self.lead.token:
            facts.token, facts.born = self.lead.token, self._born
            facts.prices = {b.spec.group: b.price for b in state.backends if b.price}
            facts.signals = about.told_signals(state, engine.now())
        return facts

    def _take(self, view: View) -> None:
        engine = self._engine
        others = {name: facts for name, raw in view.others.items() if (facts := about.decode(raw))}
        self._recovered(len(others) + 1)
        if view.born != self._born:
            self._remind(view)
        engine.gate.ledger.learn(view.totals)
        self._settle(others)
        engine.gate.learn_active(_active(others))
        prefixes = self._fresh_prefixes(others)
        loads = added(facts.loads for facts in others.values())
        engine.dispatcher.share(loads, engine.now(), prefixes=prefixes)
        self._follow_leader(others)
        self._take_workers(view.workers)
        engine.poke()

    def _remind(self, view: View) -> None:
        """The board has lost its memory: it gets back what is known here.

        Registered workers from everybody; what was used of limits and budgets from who leads; and
        tokens begin anew, so who led bids again.
        """
        if self._born:
            log.warning("shared state was lost and is made anew from what the replicas know")
            for name, spec in self._roster.members(REST).items():
                if name not in view.workers and name not in self._gone:
                    self._joined.setdefault(name, msgspec.json.encode(spec))
            self._owed = self._engine.gate.ledger.missing(view.totals)
            self.lead.begin_anew()
        self._born = view.born

    def _settle(self, others: Mapping[str, Facts]) -> None:
        """One replica, the leader, adds what the board has forgotten."""
        if self._owed and self.lead.token:
            for entry, amount in self._owed.items():
                self._engine.gate.ledger.add(entry, amount)
        if self.lead.token or any(f.token and f.born == self._born for f in others.values()):
            self._owed = {}

    def _fresh_prefixes(self, others: Mapping[str, Facts]) -> list[Prefix]:
        """Those not heard before; a replica's first words are all fresh."""
        fresh: list[Prefix] = []
        for name, facts in others.items():
            heard = self._heard.get(name, 0)
            fresh += [prefix for number, prefix in facts.prefixes if number > heard]
            if facts.prefixes:
                self._heard[name] = facts.prefixes[-1][0]
        for name in self._heard.keys() - others.keys():
            del self._heard[name]
        return fresh

    def _follow_leader(self, others: Mapping[str, Facts]) -> None:
        leader = self.lead.followed(f for f in others.values() if f.born == self._born)
        if leader is None:
            return
        engine = self._engine
        now, dispatcher = engine.now(), engine.dispatcher
        if leader.prices != {b.spec.group: b.price for b in dispatcher.state.backends if b.price}:
            dispatcher.set_prices(leader.prices, now)
        for name, signals in leader.signals.items():
            observed_s = now - signals.observed_s
            if observed_s > self._scraped_s.get(name, -1e9) + self._settings.interval_s:
                self._scraped_s[name] = observed_s
                dispatcher.scrape(name, replace(signals, observed_s=observed_s), now)

    def _take_workers(self, workers: Mapping[str, bytes]) -> None:
        pending = {name: raw for name, raw in workers.items() if name not in self._gone}
        specs = [msgspec.json.decode(raw, type=BackendSpec) for raw in pending.values()]
        specs += [msgspec.json.decode(raw, type=BackendSpec) for raw in self._joined.values()]
        if {spec.name: spec for spec in specs} != self._roster.members(REST):
            for spec in specs:
                self._engine.guards.setdefault(spec.name, self._guard)
            self._roster.put_specs(REST, specs)

    # -- without the board -------------------------------------------------------------------

    def _alone(self, error: BoardError) -> None:
        self._failed()
        engine = self._engine
        if self.up:
            log.error("shared state is gone, this replica goes on alone: %s", error)
        self.up = False
        if engine.now() - self._last_ok_s > self._settings.stale_after_s and self.replicas > 1:
            self.replicas = 1
            engine.dispatcher.share({}, engine.now())
            engine.gate.learn_active({})
        if engine.now() - self._last_ok_s > self._settings.lease_s:
            self.lead.alone()

    def _recovered(self, replicas: int) -> None:
        if not self.up:
            log.warning("shared state is back: %d replicas", replicas)
            self.lead.bid_soon()
        self.up = True
        self.replicas = replicas
        self._last_ok_s = self._engine.now()


def _told_to_stop() -> bool:
    """Whether this task was cancelled, though it runs.

    redis-py turns a cancellation that finds it waiting for a connection into an error of its own.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _active(others: Mapping[str, Facts]) -> dict[str, int]:
    active: dict[str, int] = {}
    for facts in others.values():
        for holder, count in facts.active.items():
            active[holder] = active.get(holder, 0) + count
    return active
